"""Is this run reproducible? Reads a run's record, replays its steps in a new process and compares every number exactly.

    recorded      a run folder: config, environment, rows, sessions
    trace         two lists of rows: identical, or the first step and quantity that differ
    causes        what differs between two environments, the most likely cause first
    overrides     a recorded config as arguments of train.py, verified by composing them
    corpus        the data of a run compared with what is prepared now
    replay        train.py in a temporary run folder, with the recorded decisions
    audit         the first steps of a run, replayed and compared
    variations    the same config trained twice, over seeds, over numbers of threads
    compared      two runs
    question      the command's arguments, and which of these answers them
    report        Markdown and JSON of an answer
    again         the command that repeats a run
    machine_page  environment_info.md

Nothing here changes a run; only the report is written into its folder.
"""
