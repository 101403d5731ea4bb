"""The known architectures of GGUF, and what a file says about its model."""

from __future__ import annotations

import dataclasses
import difflib

import numpy as np

from litgpt_core.core.errors import CheckpointError, ConfigError
from litgpt_core.export.gguf.architecture import Architecture, metadata_file, rules_of
from litgpt_core.export.gguf.gemma import GEMMA, GEMMA2, GEMMA3
from litgpt_core.export.gguf.header import AGAIN, GGUFFile
from litgpt_core.export.gguf.llama import LLAMA, OLMO2, PHI3, QWEN2, QWEN3, QWEN3MOE
from litgpt_core.export.gguf.neox import GPT2, GPT_NEOX, PHI2
from litgpt_core.export.gguf.quantization import dequantize
from litgpt_core.export.gguf.rope_divisors import adjustments_of
from litgpt_core.model.config import GPTConfig

ARCHITECTURES = (LLAMA, QWEN3, QWEN2, QWEN3MOE, GPT2, GPT_NEOX, PHI2, PHI3, OLMO2, GEMMA, GEMMA2, GEMMA3)
"""In the order in which an export tries them."""

EMBEDDING_NAME, ROPE_FREQUENCIES = "token_embd.weight", "rope_freqs.weight"


def recognise(file: GGUFFile) -> Architecture:
    """The architecture of a file.

    Raises:
        CheckpointError: It is unknown, or the file is one part of several, or holds no language model.
    """
    known = {each.model_type: each for each in ARCHITECTURES}
    name = file.metadata.get("general.architecture")
    if name not in known:
        near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.4)
        closest = f"; the closest is {near[0]}" if near else ""
        raise CheckpointError(
            f"{file.path} is a model of the architecture {name!r}, which is unknown here.",
            needed=f"one of {', '.join(sorted(known))}{closest}",
            fix="choose another model",
        )
    parts = file.metadata.get("split.count", 1)
    if parts != 1:
        raise CheckpointError(
            f"{file.path} is one of {parts} files of a model.",
            needed="one file",
            fix="llama-gguf-split --merge joins them",
        )
    if EMBEDDING_NAME not in file.tensors or len(file.tensors[EMBEDDING_NAME].shape) != 2:
        raise CheckpointError(
            f"{file.path} has no token embedding {EMBEDDING_NAME}.", needed="a complete language model", fix=AGAIN
        )
    found = known[name]
    if found.fused_names is not None and "blk.0.attn_qkv.weight" in file.tensors:
        return dataclasses.replace(found, rules=rules_of(found.fused_names))
    return found


def read_settings(file: GGUFFile, architecture: Architecture) -> GPTConfig:
    """The model's config from the metadata; rows of the embedding, biases and tying from the tensors.

    Raises CheckpointError for a setting that is missing or has no counterpart here.
    """
    settings = metadata_file(file.path, file.metadata)
    rows = file.tensors[EMBEDDING_NAME].shape[0]
    fields = architecture.read(settings)
    if "blk.0.attn_output.bias" in file.tensors:
        fields["bias"] = True
    if (stored := file.tensors.get(ROPE_FREQUENCIES)) is not None:
        divisors = dequantize(file.raw(stored), stored.type, (-1,))
        fields["rope_adjustments"] = adjustments_of(
            np.asarray(divisors, dtype=np.float64), base=fields["rope_base"], path=file.path
        )
    title = str(file.metadata.get("general.name") or file.path.stem).replace("/", "-").replace(" ", "-")
    try:
        return GPTConfig(
            name=architecture.model_name(title),
            vocab_size=rows,
            padded_vocab_size=rows,
            tie_embeddings=architecture.head not in file.tensors,
            **fields,
        )
    except ConfigError as problem:
        raise CheckpointError(
            f"{file.path} describes a model that cannot be built. {problem.given}", needed=problem.needed, fix=AGAIN
        ) from problem
