"""Corpora of any size: read in constant memory, tokenized chunk by chunk, kept as many shards."""
