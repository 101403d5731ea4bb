"""Allocates weights in huge pages, where the system supports them.

Decoding reads all weights for every token and is limited by memory bandwidth; with 4 kB pages, part of the time goes to
address translation (TLB misses).
"""

from __future__ import annotations

import contextlib
import math
import mmap
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from litgpt_core.model.quantized import PackedMatrix

ALIGNMENT = 4096
"""Bytes; each tensor starts on a page."""


@torch.no_grad()
def move_to_huge_pages(model: nn.Module, *, dtype: torch.dtype) -> None:
    """Move every CPU parameter into one new block of memory, converted to `dtype`; shared parameters stay shared.

    Packed matrices move too, byte for byte.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.device.type == "cpu"]
    targets = allocate_tensors([parameter.shape for parameter in parameters], dtype=dtype)
    for parameter, target in zip(parameters, targets, strict=True):
        parameter.data = target.copy_(parameter)
    packed = [module for module in model.modules() if isinstance(module, PackedMatrix) and module.codes.is_cpu]
    for name, kind in (("codes", torch.uint8), ("scale_bits", torch.int16)):
        buffers = [getattr(module, name) for module in packed]
        for module, buffer, target in zip(
            packed, buffers, allocate_tensors([buffer.shape for buffer in buffers], dtype=kind), strict=True
        ):
            setattr(module, name, target.copy_(buffer))


def allocate_tensors(shapes: Sequence[Sequence[int]], *, dtype: torch.dtype) -> list[Tensor]:
    """Uninitialised tensors of these shapes in one block, which stays allocated as long as one of them exists."""
    sizes = [_round_up(math.prod(shape) * dtype.itemsize) for shape in shapes]
    block, tensors, offset = _block(sum(sizes)), [], 0
    for shape, size in zip(shapes, sizes, strict=True):
        tensors.append(block[offset : offset + math.prod(shape) * dtype.itemsize].view(dtype).view(tuple(shape)))
        offset += size
    return tensors


def _block(size: int) -> Tensor:
    """(size,) uint8."""
    if not size or not hasattr(mmap, "MADV_HUGEPAGE"):
        return torch.empty(size, dtype=torch.uint8)
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)  # huge pages need private memory
    with contextlib.suppress(OSError):  # an operating system without huge pages is only slower
        memory.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(memory, dtype=torch.uint8)


def _round_up(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
