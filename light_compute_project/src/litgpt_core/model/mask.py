"""Attention masks: which token attends to which; built once per forward pass, shared by all layers.

    True = may see; rows are queries, columns are keys; window = 2

    full, no cache       windowed, no cache      full, cache of S = 6 slots, input_pos = [2, 3]
      0 1 2 3              0 1 2 3                  0 1 2 3 4 5
    0 1 . . .            0 1 . . .                2 1 1 1 . . .
    1 1 1 . .            1 1 1 . .                3 1 1 1 1 . .
    2 1 1 1 .            2 . 1 1 .
    3 1 1 1 1            3 . . 1 1

`None` means the plain causal triangle, which the fused attention kernels make themselves (and fastest).

Several sequences in one row do not attend to each other (`segment_masks`), so each gets the same logits as in a row of
its own. For training and evaluation; a KV cache holds one sequence per row.

    segments    1  1  1  2  2  3  3  3      equal neighbours are one sequence
    positions   0  1  2  0  1  0  1  2      each sequence begins at 0

    mask        0  1 . . . . . . .          causal, and within the sequence only
                1  1 1 . . . . . .
                2  1 1 1 . . . . .
                3  . . . 1 . . . .
                4  . . . 1 1 . . .          and so on

A row that begins with the id -1 is a tree: what follows it are continuations of that beginning, and each is as it would
be directly behind it.

    segments   -1 -1 -1  1  1  2  2         positions   0  1  2  3  4  3  4
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from litgpt_core.model.config import GPTConfig


class Masks(NamedTuple):
    """Masks (T, S) or (B, 1, T, S), or None for plain causal attention.

    Boolean, or numbers that are added to the scores: 0 where the query may see the key, else minus infinity.
    """

    full: Tensor | None
    windowed: Tensor | None

    def as_numbers(self, dtype: torch.dtype) -> Masks:
        """What fused attention makes of boolean masks, made once for all layers, and kept once for the derivative."""
        full, windowed = (None if mask is None else _numbers(mask, dtype) for mask in self)
        return Masks(full, full if self.windowed is self.full else windowed)


def _numbers(mask: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, float("-inf"))


def build_masks(config: GPTConfig, positions: Tensor, *, n_slots: int | None = None) -> Masks:
    """Masks for queries at `positions`.

    Args:
        config: Read for its window and its soft-cap (which has no fused kernel, so it always needs a mask).
        positions: Positions of the T queries, (T,), or (B, T) where they differ from sequence to sequence.
        n_slots: Length S of the KV cache, or None if the keys are the T queries' own.
    """
    window = config.sliding_window_size
    narrow = window is not None and (n_slots is not None or window < positions.size(-1))
    full = n_slots is not None or config.attention_logit_softcapping is not None
    if not full and not narrow:
        return Masks(None, None)
    keys = positions if n_slots is None else torch.arange(n_slots, device=positions.device)
    queries = positions[..., None] if positions.dim() == 1 else positions[:, None, :, None]
    causal = keys <= queries  # (T, S) or (B, 1, T, S)
    windowed = causal if window is None else causal & (keys > queries - window)
    return Masks(causal if full else None, windowed)


def segment_masks(config: GPTConfig, segments: Tensor) -> tuple[Masks, Tensor]:
    """Masks and positions for rows of several sequences.

    Args:
        config: Read for its window.
        segments: (B, T) int64; the sequences of a row have different ids, from 0 on; -1 for what all of them continue.

    Returns:
        Masks (B, 1, T, T), never None, and positions (B, T) int64.
    """
    index = torch.arange(segments.size(1), device=segments.device)
    keys = segments[:, None, :]
    seen = ((segments[:, :, None] == keys) | (keys < 0)) & (index <= index[:, None])  # (B, T, T)
    positions = seen.sum(dim=-1) - 1
    full = seen[:, None]
    window = config.sliding_window_size
    if window is None:
        return Masks(full, full), positions
    return Masks(full, full & (positions[:, None, None, :] > positions[:, None, :, None] - window)), positions
