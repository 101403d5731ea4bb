"""Names inside a checkpoint directory: LitGPT's own, fixed by upstream, and what this project adds. No logic."""

from __future__ import annotations

WEIGHTS = "lit_model.pth"
"""The plain state dict, in torch's zip format."""

MODEL_CONFIG = "model_config.yaml"
"""The model fields that differ from LitGPT's defaults."""

HYPERPARAMETERS = "hyperparameters.yaml"
"""How the model was trained; read by people and by LitGPT's LoRA merge."""

CHECKSUMS = "checksums.json"
"""Ours: `{file: {"bytes": n, "sha256": hex}}`, written last. Directories made elsewhere lack it."""

TOKENIZER_CONFIG = "tokenizer_config.json"

TOKENIZER_VOCABULARIES = ("tokenizer.json", "tokenizer.model")
"""At least one of them is in every directory; LitGPT prefers the first."""

TOKENIZER_FILES = (
    *TOKENIZER_VOCABULARIES,
    TOKENIZER_CONFIG,
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "generation_config.json",
    "prompt_style.yaml",
    "chat_template.jinja",
)
"""What travels with a tokenizer from one directory to the next, as far as present."""
