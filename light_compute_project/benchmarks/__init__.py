"""Races against the peers: every contestant a process of its own, alternating, measured from outside.

    workload     what everybody has to do, read from one experiment's YAML
    processes    one child process: wall time, peak memory, output
    race         the order of the laps, and what one lap leaves
    train_*      the command of each contestant in training, and how its step times are read
    peer_*       modules that run inside a child process, the only places that import a peer
    record       medians, spreads, ratios, provenance: the JSON in metrics/
    table, chart what a reader sees

Nothing here changes a model or decides a setting.
"""
