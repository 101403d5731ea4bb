"""A GPT without any package but Python itself: to read, to check the real one against, to run where torch is not.

    microgpt                    everything in one file of 200 lines, every number with its derivative: start here
    tape, train                 the derivatives of whole rows, and the same model on them, 8 times as fast
    checkpoint                  writes what was trained as a LitGPT directory
    weights, config, vocabulary read a checkpoint directory
    gpt                         any model of ours, token by token; of layers, attention, feed_forward, rope, arithmetic
    rng, sampling, generate     the engine's random numbers and texts

`docs/pure_python.md` is the chapter to it. Imports the standard library and `core`.
"""
