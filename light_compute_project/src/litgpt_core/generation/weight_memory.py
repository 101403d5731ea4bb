"""One block of memory for all weights of a model that only reads from now on, in large pages where the system has them.

Decoding is bound by how fast weights are read, and with pages of 4 kB the processor spends part of that on finding
pages. Not here: which model, which type of numbers.
"""

from __future__ import annotations

import contextlib
import mmap

import torch
from torch import Tensor, nn

ALIGNMENT = 4096
"""Bytes; each tensor begins on a page."""


@torch.no_grad()
def gather_weights(model: nn.Module, *, dtype: torch.dtype) -> None:
    """Move every parameter on the CPU into one new block, as `dtype`; shared parameters stay shared."""
    parameters = [parameter for parameter in model.parameters() if parameter.device.type == "cpu"]
    sizes = [_round_up(parameter.numel() * dtype.itemsize) for parameter in parameters]
    if not sum(sizes):
        return
    block = _block(sum(sizes))
    offset = 0
    for parameter, size in zip(parameters, sizes, strict=True):
        room = block[offset : offset + parameter.numel() * dtype.itemsize].view(dtype).view(parameter.shape)
        parameter.data = room.copy_(parameter)
        offset += size


def _block(size: int) -> Tensor:
    """(size,) uint8, alive as long as a view of it."""
    if not hasattr(mmap, "MADV_HUGEPAGE"):
        return torch.empty(size, dtype=torch.uint8)
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)  # shared memory has no large pages
    with contextlib.suppress(OSError):  # a kernel built without them: slower, nothing else
        memory.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(memory, dtype=torch.uint8)


def _round_up(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
