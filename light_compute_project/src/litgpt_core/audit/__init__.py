"""Can this run be had again? Recorded facts read back, steps replayed in a fresh process, numbers compared bit by bit.

    recorded     a run folder as evidence: config, environment, rows, sittings
    trace        two lists of rows: identical, or the first step and quantity that differ
    suspects     what differs between two environments, the likeliest cause first
    overrides    a recorded config as arguments of train.py, proven by composing them
    corpus       the data of a run against what is prepared now
    replay       train.py in a temporary run folder, with the recorded decisions
    audit        the questions: replay, twice, seeds, threads, two runs; each answers with a Report
    report       Markdown and JSON of an answer
    again        the command that repeats a run
    machine_page environment_info.md

Nothing here changes a run; a report is all that is written into its folder.
"""
