"""Allocates weights in huge pages, where the system supports them.

Decoding reads all weights for every token and is limited by memory bandwidth; with 4 kB pages, part of the time goes to
address translation (TLB misses).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from litgpt_core.core.huge_pages import huge_page_memory

ALIGNMENT = 4096
"""Bytes; each tensor starts on a page."""


@torch.no_grad()
def move_to_huge_pages(model: nn.Module, *, dtype: torch.dtype) -> None:
    """Move every CPU parameter into one new block of memory, converted to `dtype`; shared parameters stay shared.

    Packed matrices stay: `checkpoint.compressed` reads them into huge pages in the first place.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.device.type == "cpu"]
    targets = allocate_tensors([parameter.shape for parameter in parameters], dtype=dtype)
    for parameter, target in zip(parameters, targets, strict=True):
        parameter.data = target.copy_(parameter)


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
    return torch.frombuffer(huge_page_memory(size), dtype=torch.uint8) if size else torch.empty(0, dtype=torch.uint8)


def _round_up(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
