"""Small numbers from the host to the model's device, without waiting for it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

Numbers = Sequence[int] | Sequence[float] | Sequence[Sequence[int]]


def numbers_on(device: torch.device, numbers: Numbers, *, dtype: torch.dtype = torch.int64) -> Tensor:
    """A tensor of `numbers` on `device`. On CUDA it is copied from pinned memory, for which the host does not wait."""
    if device.type != "cuda":
        return torch.tensor(numbers, dtype=dtype, device=device)
    return torch.tensor(numbers, dtype=dtype, pin_memory=True).to(device, non_blocking=True)
