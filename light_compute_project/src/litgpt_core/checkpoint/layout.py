"""File names in a checkpoint directory: LitGPT's, which are fixed by upstream, and those of this project."""

from __future__ import annotations

from litgpt_core.core.replaceable import CHECKSUMS as CHECKSUMS
from litgpt_core.tokenizers.file_names import COMPANIONS, CONFIG_FILE, JSON_FILE, MODEL_FILE

WEIGHTS = "lit_model.pth"
"""The plain state dict, in torch's zip format."""

COMPRESSED = "compressed.safetensors"
"""Compressed matrices and all other weights, in place of `lit_model.pth`; see `compressed.py`."""

COMPRESSION = "compression.yaml"
"""What `compressed.safetensors` holds and how it was made."""

ADAPTER = "lit_model.pth.lora"
"""The adapters of a LoRA run, alongside the merged weights or, as LitGPT writes them, alone."""

SHARDS = ".metadata"
"""Index of the shards of a sharded checkpoint, which has no weights file; see `sharded.py`."""

MODEL_CONFIG = "model_config.yaml"
"""The model fields that differ from LitGPT's defaults."""

HYPERPARAMETERS = "hyperparameters.yaml"
"""Hyperparameters of the training run; read by LitGPT's LoRA merge."""

TOKENIZER_CONFIG = CONFIG_FILE

TOKENIZER_VOCABULARIES = (JSON_FILE, MODEL_FILE)
"""Every directory has at least one of them; LitGPT prefers the first."""

TOKENIZER_FILES = (*TOKENIZER_VOCABULARIES, TOKENIZER_CONFIG, *COMPANIONS)
"""Files of a tokenizer, copied between directories where present."""
