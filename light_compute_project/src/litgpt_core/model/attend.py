"""softmax(q k^T * scale) v: the one sum that both kinds of attention share. It has no parameters."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

Attend = Callable[..., Tensor]
"""Anything with the arguments and the result of `attend`."""


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    mask: Tensor | None,
    scale: float,
    softcap: float | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """Mix values by the similarity of queries and keys.

    Args:
        q: (B, nh, T, hs).
        k: (B, G, S, hs), where G divides nh: query head i reads group i // (nh / G).
        v: (B, G, S, hs_v).
        mask: (T, S), True where the query may see the key, or numbers that are added to the scores; None for the causal
            triangle (then S = T).
        scale: Multiplies the scores.
        softcap: Scores become softcap * tanh(scores / softcap). No fused kernel does that, so the scores are held in
            memory, and a boolean mask is needed.
        dropout: Probability of dropping an attention weight.

    Returns:
        (B, nh, T, hs_v)
    """
    if softcap is None and mask is None and _written_out_is_faster(q):
        return _attend_causally(q, k, v, scale=scale, dropout=dropout)
    if softcap is None:
        if mask is not None and mask.dtype not in (torch.bool, q.dtype):
            mask = mask.to(q.dtype)
        if _grouped_without_kernel(q, masked=mask is not None):
            k, v = repeat_groups(q, k, v)
        grouped = q.size(1) != k.size(1)
        return functional.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, dropout_p=dropout, is_causal=mask is None, scale=scale, enable_gqa=grouped
        )
    assert mask is not None, "a soft-cap needs a mask: see build_masks"
    k, v = repeat_groups(q, k, v)
    return _mix(soft_cap(q @ k.mT * scale, softcap), v, mask=mask, dropout=dropout)


def _grouped_without_kernel(q: Tensor, *, masked: bool) -> bool:
    """Whether torch, in the versions from 2.11 on, may have no fused kernel for grouped queries: in training on a GPU,
    with a mask or in float32. It would hold the scores of every head, far more than keys and values of every head.
    """
    return _device_of(q) == "cuda" and q.requires_grad and (masked or q.dtype == torch.float32)


def _device_of(q: Tensor) -> str:
    return q.device.type


WRITTEN_OUT_LENGTH = {torch.bfloat16: 256, torch.float32: 128}
"""Contexts up to which, in training on a CPU, products and softmax as operations of their own beat the fused kernel.

Forward and backward on 2 AMD EPYC cores, 4,096 tokens, 4 heads of 64, milliseconds written out / fused: bfloat16
6 / 26 at T=64, 21 / 30 at 256, 90 / 61 at 1,024; float32 11 / 14 at 64, 19 / 23 at 128, 33 / 33 at 256, 147 / 91 at
1,024.
"""


def _written_out_is_faster(q: Tensor) -> bool:
    return _device_of(q) == "cpu" and q.requires_grad and q.size(-2) <= WRITTEN_OUT_LENGTH.get(q.dtype, 0)


QUERY_BLOCK = 128
"""Queries that are written out together. A block sees no key after its last query, so two blocks compute and hold three
quarters of the scores: 961 -> 913 ms a training step at 6 layers, 6 heads, 384 wide, context 256, 4,096 tokens on 2 AMD
EPYC cores in bfloat16; blocks of 64, 907 ms, are not worth their compilation.
"""


def _attend_causally(q: Tensor, k: Tensor, v: Tensor, *, scale: float, dropout: float) -> Tensor:
    """What the fused kernel computes for a causal triangle, holding the scores: of each block of queries with the keys
    up to its end.
    """
    k, v = repeat_groups(q, k, v)
    blocks = []
    for begin in range(0, q.size(-2), QUERY_BLOCK):
        end = min(begin + QUERY_BLOCK, q.size(-2))
        mask = torch.ones(end - begin, end, dtype=torch.bool, device=q.device).tril(begin)
        scores = q[..., begin:end, :] @ k[..., :end, :].mT * scale
        blocks.append(_mix(scores, v[..., :end, :], mask=mask, dropout=dropout))
    return blocks[0] if len(blocks) == 1 else torch.cat(blocks, dim=-2)


def repeat_groups(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """(B, G, S, hs) -> (B, nh, S, hs), both."""
    repeats = q.size(1) // k.size(1)
    if repeats == 1:
        return k, v
    return k.repeat_interleave(repeats, dim=1), v.repeat_interleave(repeats, dim=1)


def _mix(scores: Tensor, v: Tensor, *, mask: Tensor, dropout: float) -> Tensor:
    """(B, nh, T, S) scores, (B, nh, S, hs) -> (B, nh, T, hs)"""
    scores = scores.masked_fill(~mask, float("-inf"))
    weights = functional.softmax(scores, dim=-1, dtype=torch.promote_types(scores.dtype, torch.float32)).to(v.dtype)
    return functional.dropout(weights, p=dropout) @ v


def soft_cap(x: Tensor, cap: float) -> Tensor:
    """Squeeze x smoothly into (-cap, cap) (Gemma 2)."""
    return torch.tanh(x / cap) * cap
