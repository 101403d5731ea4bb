"""File names in a Hugging Face model folder."""

from __future__ import annotations

CONFIG = "config.json"
GENERATION_CONFIG = "generation_config.json"

SAFETENSORS, SAFETENSORS_INDEX = "model.safetensors", "model.safetensors.index.json"
TORCH, TORCH_INDEX = "pytorch_model.bin", "pytorch_model.bin.index.json"

WEIGHTS = (SAFETENSORS, SAFETENSORS_INDEX, TORCH, TORCH_INDEX)
"""Weight files in the order of preference; an index names the shards."""

SHARD = "model-{number:05d}-of-{total:05d}.safetensors"
"""Name of one shard of several."""

TOKENIZER_JSON, TOKENIZER_MODEL, TOKENIZER_CONFIG = "tokenizer.json", "tokenizer.model", "tokenizer_config.json"
VOCABULARY, MERGES = "vocab.json", "merges.txt"
SPECIAL_TOKENS = "special_tokens_map.json"
