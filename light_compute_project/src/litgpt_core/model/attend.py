"""softmax(q k^T * scale) v: the one sum that both kinds of attention share. It has no parameters."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


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
        mask: (T, S), True where the query may see the key; None for the causal triangle (then S = T).
        scale: Multiplies the scores.
        softcap: Scores become softcap * tanh(scores / softcap). No fused kernel does that, so the scores are held in
            memory, and a mask is needed.
        dropout: Probability of dropping an attention weight.

    Returns:
        (B, nh, T, hs_v)
    """
    if softcap is None:
        grouped = q.size(1) != k.size(1)
        return functional.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, dropout_p=dropout, is_causal=mask is None, scale=scale, enable_gqa=grouped
        )
    assert mask is not None, "a soft-cap needs a mask: see build_masks"
    repeats = q.size(1) // k.size(1)
    k, v = k.repeat_interleave(repeats, dim=1), v.repeat_interleave(repeats, dim=1)
    scores = soft_cap(q @ k.mT * scale, softcap).masked_fill(~mask, float("-inf"))  # (B, nh, T, S)
    weights = functional.softmax(scores, dim=-1, dtype=torch.promote_types(q.dtype, torch.float32)).to(v.dtype)
    return functional.dropout(weights, p=dropout) @ v


def soft_cap(x: Tensor, cap: float) -> Tensor:
    """Squeeze x smoothly into (-cap, cap) (Gemma 2)."""
    return torch.tanh(x / cap) * cap
