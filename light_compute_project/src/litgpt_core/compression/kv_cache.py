"""What rounding the KV cache costs: a model whose attention reads rounded keys and values, and the bytes of a token.

    per token      a scale for every token and head: the cache of `--kv_cache int8`
    per channel    a scale for every channel of 32 tokens, as KIVI (arXiv 2402.02750) rounds keys, whose outliers stay
                   in the same channels; the latest tokens, fewer than 32, stay as they are

Only attention with grouped heads; codes are symmetric: -7..7 for 4 bits, -127..127 for 8.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from litgpt_core.core.errors import ConfigError
from litgpt_core.model.attend import attend
from litgpt_core.model.attention import CausalSelfAttention
from litgpt_core.model.config import GPTConfig
from litgpt_core.model.gpt import GPT

CHANNEL_GROUP = 32
"""Tokens that share the scale of a channel."""


def rounded_tokens(x: Tensor, *, bits: int) -> Tensor:
    """(..., hs) rounded with one scale per vector."""
    return _rounded(x, bits=bits, dim=-1)


def rounded_channels(x: Tensor, *, bits: int) -> Tensor:
    """(..., T, hs) rounded with one scale per channel and 32 tokens; the last, incomplete group as it is."""
    whole = x.size(-2) // CHANNEL_GROUP * CHANNEL_GROUP
    head = x[..., :whole, :].reshape(*x.shape[:-2], -1, CHANNEL_GROUP, x.size(-1))
    return torch.cat([_rounded(head, bits=bits, dim=-2).flatten(-3, -2), x[..., whole:, :]], dim=-2)


def _rounded(x: Tensor, *, bits: int, dim: int) -> Tensor:
    highest = 2 ** (bits - 1) - 1
    scale = x.float().abs().amax(dim=dim, keepdim=True) / highest
    inverse = torch.where(scale == 0, 0.0, 1 / torch.where(scale == 0, 1.0, scale))
    rounded: Tensor = (x.float() * inverse).round() * scale
    return rounded.to(x.dtype)


@contextmanager
def rounded_cache(model: GPT, *, bits: int, keys: str = "token") -> Iterator[None]:
    """Let attention read rounded keys and values meanwhile.

    Args:
        model: Without latent attention.
        bits: 8 or 4, or any other number above 1.
        keys: token or channel; values are always rounded per token.

    Raises:
        ConfigError: The model has latent attention.
    """
    layers = [module for module in model.modules() if isinstance(module, CausalSelfAttention)]
    if len(layers) < model.config.n_layer:
        raise ConfigError("The KV cache of latent attention is not rounded here.", needed="grouped heads")

    def mix(q: Tensor, k: Tensor, v: Tensor, **more: Any) -> Tensor:
        round_keys = rounded_channels if keys == "channel" else rounded_tokens
        return attend(q, round_keys(k, bits=bits), rounded_tokens(v, bits=bits), **more)

    before = [layer.attend for layer in layers]
    try:
        for layer in layers:
            layer.attend = mix
        yield
    finally:
        for layer, kept in zip(layers, before, strict=True):
            layer.attend = kept


def bytes_per_token(config: GPTConfig, *, bits: int, keys: str = "token") -> float:
    """Bytes that a token of context takes in the caches of all layers; 16 bits have no scales, others float32 ones."""
    heads, size = config.n_layer * config.n_query_groups, config.head_size
    scale = 0 if bits == 16 else 4
    key_scales = scale * size / CHANNEL_GROUP if keys == "channel" else scale
    return heads * (2 * size * bits / 8 + key_scales + scale)
