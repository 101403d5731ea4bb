"""Light Compute Project's core: model, tokenizers, data, training, checkpoints and generation, beside an untouched
LitGPT.
"""
