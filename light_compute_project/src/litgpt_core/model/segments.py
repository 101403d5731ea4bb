"""Several sequences in one row that do not attend to each other: positions and masks from a segment id per token.

    segments    1  1  1  2  2  3  3  3      equal neighbours are one sequence
    positions   0  1  2  0  1  0  1  2      each sequence begins at 0

    mask        0  1 . . . . . . .          causal, and within the sequence only
                1  1 1 . . . . . .
                2  1 1 1 . . . . .
                3  . . . 1 . . . .
                4  . . . 1 1 . . .          and so on

So each sequence gets the same logits as in a row of its own. For training and evaluation; a KV cache holds one sequence
per row.

A row that begins with the id -1 is a tree: what follows it are continuations of that beginning, and each is as it would
be directly behind it.

    segments   -1 -1 -1  1  1  2  2         positions   0  1  2  3  4  3  4
"""

from __future__ import annotations

import torch
from torch import Tensor

from litgpt_core.model.config import GPTConfig
from litgpt_core.model.mask import Masks


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
