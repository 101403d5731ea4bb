"""Memory in large pages, where the system has them, for weights, which every token reads as a whole.

Decoding is bound by how fast these are read, and with pages of 4 kB the processor spends part of that on finding pages.
Not here: which model, which type of numbers.
"""

from __future__ import annotations

import contextlib
import math
import mmap
from collections.abc import Sequence

import torch
from torch import Tensor, nn

ALIGNMENT = 4096
"""Bytes; each tensor begins on a page."""


@torch.no_grad()
def gather_weights(model: nn.Module, *, dtype: torch.dtype) -> None:
    """Move every parameter on the CPU into one new block, as `dtype`; shared parameters stay shared."""
    parameters = [parameter for parameter in model.parameters() if parameter.device.type == "cpu"]
    rooms = rooms_for([parameter.shape for parameter in parameters], dtype=dtype)
    for parameter, room in zip(parameters, rooms, strict=True):
        parameter.data = room.copy_(parameter)


def rooms_for(shapes: Sequence[Sequence[int]], *, dtype: torch.dtype) -> list[Tensor]:
    """Tensors of these shapes, not filled, side by side in one block; it lives as long as one of them."""
    sizes = [_round_up(math.prod(shape) * dtype.itemsize) for shape in shapes]
    block, rooms, offset = _block(sum(sizes)), [], 0
    for shape, size in zip(shapes, sizes, strict=True):
        rooms.append(block[offset : offset + math.prod(shape) * dtype.itemsize].view(dtype).view(tuple(shape)))
        offset += size
    return rooms


def _block(size: int) -> Tensor:
    """(size,) uint8, alive as long as a view of it."""
    if not size or not hasattr(mmap, "MADV_HUGEPAGE"):
        return torch.empty(size, dtype=torch.uint8)
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)  # shared memory has no large pages
    with contextlib.suppress(OSError):  # a kernel built without them: slower, nothing else
        memory.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(memory, dtype=torch.uint8)


def _round_up(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
