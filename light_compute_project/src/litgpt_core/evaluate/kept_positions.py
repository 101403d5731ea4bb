"""The last block computes only what is read: a sixth less work for a context whose last position alone is.

    blocks 0 .. L - 2     all T positions
    block L - 1           keys and values of all T; attention, projection and MLP of the n positions that are kept

A kept position needs every position before it in all blocks but the last, whose other outputs nobody reads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor

from litgpt_core.model.attend import attend
from litgpt_core.model.block import Block
from litgpt_core.model.gpt import GPT
from litgpt_core.model.rope import RopeTable

MANY = 4
"""From a share of 1/4 of the positions on, attention is computed for all."""


@contextmanager
def kept_positions(model: GPT, keep: Tensor) -> Iterator[None]:
    """Inside, `model.hidden` returns (B, n, C): its output at the positions `keep` (B, n) int64 of the T that are fed.

    Not for training, and not safe where another thread uses the same model.
    """
    last = model.transformer.h[-1]
    assert isinstance(last, Block)
    last.__dict__["forward"] = partial(_forward, last, keep)
    try:
        yield
    finally:
        del last.__dict__["forward"]


def hidden_at(model: GPT, ids: Tensor, keep: Tensor, *, segments: Tensor | None = None) -> Tensor:
    """`model.hidden` at some positions: ids (B, T), keep (B, n) -> (B, n, C); `segments` as of `GPT.forward`."""
    if not can_keep(model):
        return _rows(model.hidden(ids, segments=segments), keep)
    with kept_positions(model, keep):
        return model.hidden(ids, segments=segments)


def can_keep(model: GPT) -> bool:
    """Whether the last block is one of ours, not compiled: a compiled one would not see that it is changed."""
    last = model.transformer.h[-1]
    return type(last) is Block and getattr(last, "_compiled_call_impl", None) is None and not model.training


def _forward(
    block: Block,
    keep: Tensor,
    x: Tensor,
    rope: RopeTable | None,
    mask: Tensor | None,
    input_pos: Tensor | None = None,
) -> Tensor:
    """`Block.forward`, from the attention on for the kept positions alone: (B, T, C) -> (B, n, C)."""
    normed = block.norm_1(x)
    attention: Any = block.attn
    before = attention.attend
    attention.attend = partial(_attend, before or attend, keep)
    try:
        mixed = attention(normed, rope, mask, input_pos)
    finally:
        attention.attend = before
    own = _rows(x, keep)
    attended = own + block.post_attention_norm(mixed)
    read = _rows(normed, keep) if block.norm_2 is None else block.norm_2(own if block.parallel else attended)
    out: Tensor = attended + block.post_mlp_norm(block.mlp(read))
    return out


def _attend(
    inner: Callable[..., Tensor], keep: Tensor, q: Tensor, k: Tensor, v: Tensor, *, mask: Tensor | None, **options: Any
) -> Tensor:
    """Of the queries (B, nh, T, hs) those that are kept, with their rows of the mask: (B, nh, n, hs_v).

    Where many are kept, the fused causal kernel for all is faster than a mask for some.
    """
    if mask is None and MANY * keep.size(1) > q.size(2):
        whole = inner(q, k, v, mask=None, **options)
        return whole.gather(2, keep[:, None, :, None].expand(-1, q.size(1), -1, whole.size(3)))
    queries = q.gather(2, keep[:, None, :, None].expand(-1, q.size(1), -1, q.size(3)))
    if mask is None:
        seen = torch.arange(k.size(2), device=keep.device) <= keep[..., None]  # (B, n, S)
    elif mask.dim() == 2:
        seen = mask[keep]
    else:
        seen = _rows(mask[:, 0], keep)
    return inner(queries, k, v, mask=seen[:, None], **options)


def _rows(x: Tensor, keep: Tensor) -> Tensor:
    """(B, T, C), (B, n) -> (B, n, C)"""
    return x.gather(1, keep[..., None].expand(-1, -1, x.size(-1)))
