"""Names of a tokenizer's files, which are fixed by LitGPT and the Hugging Face hub."""

from __future__ import annotations

JSON_FILE, MODEL_FILE, CONFIG_FILE, GENERATION_FILE = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "generation_config.json",
)
COMPANIONS = (
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    GENERATION_FILE,
    "chat_style.json",
    "prompt_style.yaml",
    "chat_template.jinja",
)
"""Further files that some programs read; they are copied with a tokenizer if they exist."""
