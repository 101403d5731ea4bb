"""Names inside a checkpoint directory: LitGPT's own, fixed by upstream, and what this project adds. No logic."""

from __future__ import annotations

from litgpt_core.tokenizers.directory import COMPANIONS

WEIGHTS = "lit_model.pth"
"""The plain state dict, in torch's zip format."""

ADAPTER = "lit_model.pth.lora"
"""The adapters of a LoRA run alone, beside the merged weights or, as LitGPT leaves them, without."""

SHARDS = ".metadata"
"""Index of the parts of a sharded checkpoint, which has no weights file; see `sharded.py`."""

MODEL_CONFIG = "model_config.yaml"
"""The model fields that differ from LitGPT's defaults."""

HYPERPARAMETERS = "hyperparameters.yaml"
"""How the model was trained; read by people and by LitGPT's LoRA merge."""

CHECKSUMS = "checksums.json"
"""Ours: `{file: {"bytes": n, "sha256": hex}}`, written last. Directories made elsewhere lack it."""

TOKENIZER_CONFIG = "tokenizer_config.json"

TOKENIZER_VOCABULARIES = ("tokenizer.json", "tokenizer.model")
"""At least one of them is in every directory; LitGPT prefers the first."""

TOKENIZER_FILES = (*TOKENIZER_VOCABULARIES, TOKENIZER_CONFIG, *COMPANIONS)
"""What travels with a tokenizer from one directory to the next, as far as present."""
