"""A GPT without any package but Python itself: to read, to check the real one against, to run where torch is not.

    microgpt     everything in one file of 200 lines, every number with its derivative: start here
    tape         the derivatives for whole rows; train: the same model on them, 20 times as fast

Imports the standard library and `core`.
"""
