"""Somebody else's formats, one folder each: `huggingface`. A checkpoint directory goes out, or comes in from there."""
