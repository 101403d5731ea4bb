"""Random windows of a token stream: the textbook way to draw training batches, for experiments and notebooks.

Training itself visits every window once per epoch in an order that can be resumed: see `dataset` and `order`.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from litgpt_core.core.errors import DataError


def get_batch(
    tokens: npt.NDArray[np.integer] | Tensor,
    *,
    batch_size: int,
    block_size: int,
    generator: torch.Generator | None = None,
    device: torch.device | str = "cpu",
) -> tuple[Tensor, Tensor]:
    """A batch of random windows and the same windows one token later.

    Args:
        tokens: (N,) token ids, such as `TokenFile.array()` of a prepared shard or a tensor; memory-mapped is fine.
        batch_size: B, windows.
        block_size: T, tokens of each.
        generator: Where the positions come from; None: torch's global one.
        device: Where the batch goes.

    Returns:
        `(inputs, targets)`, each (B, T) int64; `targets[b, t]` follows `inputs[b, t]` in the stream.

    Raises:
        DataError: The stream is shorter than `block_size + 1`.
    """
    if len(tokens) <= block_size:
        raise DataError(
            f"{len(tokens)} tokens, and block_size={block_size}",
            needed=f"at least {block_size + 1} tokens",
            fix="more text, or a smaller block_size",
        )
    starts = torch.randint(len(tokens) - block_size, (batch_size,), generator=generator).tolist()
    windows = [torch.as_tensor(np.asarray(tokens[s : s + block_size + 1], dtype=np.int64)) for s in starts]
    rows = torch.stack(windows).to(device)  # (B, T + 1)
    return rows[:, :-1].contiguous(), rows[:, 1:].contiguous()
