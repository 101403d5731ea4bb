"""Benchmarks against nanoGPT, LitGPT, transformers and llama.cpp: a tool of the repository, not part of the package.

Every program runs as its own process, in alternating order, and is measured from outside.

    options, command   the command line; what each verb calls
    peers              the programs to compare with, by name
    programs/          a `RunSpec` for each program: its command, and how its output is read
    children/          code that runs inside a measured process; the only place that imports a peer
    runner             rounds of trials in alternating order; what one trial measured
    processes, child   one process: wall time, peak memory, output; one function of `children/` in such a process
    training, generating, to_loss, loss_memory, serving    the verbs
    record             medians, spreads, ratios: the JSON in metrics/
    tables, charts     what is printed and drawn from that JSON

To add a program: one function in `programs/` that returns its RunSpec, and one line in `peers`.
"""
