"""What a page holds as data: the model's settings, its weights as one stream of bytes, and their names and sizes.

The order of the bytes, which `weights.js` reads: codes of all matrices (int8), their scales (float16), vectors
(float32).
"""

from __future__ import annotations

import base64
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from litgpt_core.core.errors import CheckpointError
from litgpt_core.export.blocks import HEAD, WTE, BlockMatrices
from litgpt_core.model.config import GPTConfig
from litgpt_core.model.rope import RotaryEmbedding, score_scaling
from litgpt_core.model.structure import NormPart, structure

CHUNK = 3 << 18
"""Bytes in one element of the page: a multiple of 3, so that base 64 needs no filling within the stream."""


def refuse_unsupported(config: GPTConfig) -> None:
    """Raise CheckpointError for a part that the page's engine does not have."""
    found = ["latent attention"] if config.latent_attention else []
    if any(config.mlp_class_of(layer) == "LLaMAMoE" for layer in range(config.n_layer)):
        found.append("a mixture of experts")
    if found:
        raise CheckpointError(
            f"The model {config.name!r} has {' and '.join(found)}, which a page does not compute.",
            needed="attention by groups and one network in each layer: GPT-2, GPT-NeoX, Llama, Qwen, Phi, Gemma",
            fix="--format gguf, or --format huggingface",
        )


def settings_of(config: GPTConfig) -> dict[str, Any]:
    """The model's settings, as `Config` in model.js."""
    c, parts = config, structure(config)
    thetas, scaling = [], 1.0
    if c.rope_n_elem:
        with torch.device("cpu"):
            rope = RotaryEmbedding(c)
        thetas, scaling = [[float(each) for each in theta] for theta in rope.theta], rope.scaling
    return {
        "width": c.n_embd,
        "heads": c.n_head,
        "groups": c.n_query_groups,
        "headSize": c.head_size,
        "hidden": c.intermediate_size,
        "length": c.block_size,
        "vocabulary": c.padded_vocab_size,
        "rms": c.norm_class_name == "RMSNorm",
        "eps": c.norm_eps,
        "parallel": c.parallel_residual,
        "shared": c.shared_attention_norm,
        "normAllHeads": c.norm_qk_type == "olmo2",
        "interleaved": c.rope_interleave,
        "scale": score_scaling(c.rope_adjustments) / math.sqrt(c.attention_scores_scalar or c.head_size),
        "scoreCap": c.attention_logit_softcapping,
        "logitCap": c.final_logit_softcapping,
        "embeddingScale": float(np.float32(c.n_embd**0.5)) if c.scale_embeddings else 1,
        "condense": c.rope_condense_ratio,
        "ropeScaling": scaling,
        "thetas": thetas,
        "layers": [
            {
                "plain": layer.mlp == "GptNeoxMLP",
                "activation": layer.activation,
                "window": layer.window,
                "rope": layer.rope,
            }
            for layer in parts.layers
        ],
    }


def matrices_of(config: GPTConfig) -> list[str]:
    """Module paths of the matrices, in order."""
    head = [] if config.tie_embeddings else [HEAD]
    return [WTE, *(path for path, _ in structure(config).linears() if path != HEAD), *head]


def vectors_of(config: GPTConfig, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Norms, with their 1 added and complete, biases, and learned positions, by name."""
    parts, found = structure(config), {}
    norms = [(layer.path(norm.name), norm) for layer in parts.layers for norm in layer.norms]
    for path, norm in [*norms, (parts.last_norm.name, parts.last_norm)]:
        found[f"{path}.weight"], bias = _norm(path, norm, weights)
        if bias is not None:
            found[f"{path}.bias"] = bias
    for path, _ in parts.linears():
        if f"{path}.bias" in weights:
            found[f"{path}.bias"] = weights[f"{path}.bias"]
    if config.position_embedding == "learned":
        found["transformer.wpe.weight"] = weights["transformer.wpe.weight"].flatten()
    return found


def _norm(path: str, norm: NormPart, weights: Mapping[str, Tensor]) -> tuple[Tensor, Tensor | None]:
    weight = weights[f"{path}.weight"] if norm.weight else torch.ones(norm.size)
    return weight + 1 if norm.unit_offset else weight, weights[f"{path}.bias"] if norm.bias else None


def header_of(matrices: BlockMatrices, vectors: Mapping[str, Tensor], config: GPTConfig) -> dict[str, Any]:
    """Names and sizes, in the order of the bytes."""
    shapes = [(path, matrices[path]) for path in matrices_of(config)]
    return {
        "tied": config.tie_embeddings,
        "matrices": [{"name": path, "rows": len(each.codes), "columns": each.columns} for path, each in shapes],
        "vectors": [{"name": name, "size": vector.numel()} for name, vector in vectors.items()],
    }


def chunks_of(matrices: BlockMatrices, vectors: Mapping[str, Tensor], config: GPTConfig) -> Iterator[str]:
    """The bytes in base 64."""
    waiting = b""
    for part in _bytes(matrices, vectors, config):
        waiting += part
        whole = len(waiting) // CHUNK * CHUNK
        for at in range(0, whole, CHUNK):
            yield base64.b64encode(waiting[at : at + CHUNK]).decode("ascii")
        waiting = waiting[whole:]
    yield base64.b64encode(waiting).decode("ascii")


def _bytes(matrices: BlockMatrices, vectors: Mapping[str, Tensor], config: GPTConfig) -> Iterator[bytes]:
    paths = matrices_of(config)
    yield from (matrices[path].codes.tobytes() for path in paths)
    yield from (matrices[path].scales.astype("<f2").tobytes() for path in paths)
    yield from (vector.float().numpy().astype("<f4").tobytes() for vector in vectors.values())
