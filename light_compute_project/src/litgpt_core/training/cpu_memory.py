"""Memory of the training kernels, used again in every step: fresh memory would cost a page fault for every 4 kB."""

from __future__ import annotations

import torch
from torch import Tensor

from litgpt_core.core.huge_pages import huge_page_memory


class StepMemory:
    """Buffers of float32, shared by the blocks of a model and its loss."""

    def __init__(self) -> None:
        self._scratch = torch.empty(0)
        self._free: dict[int, list[Tensor]] = {}

    def scratch(self, size: int) -> Tensor:
        """(size or more,) whose contents are of no use after a call."""
        if self._scratch.numel() < size:
            self._scratch = _allocate(size)
        return self._scratch

    def take(self, size: int) -> Tensor:
        """(size,), until `give`."""
        free = self._free.setdefault(size, [])
        return free.pop() if free else _allocate(size)

    def give(self, buffer: Tensor) -> None:
        """To be taken again."""
        self._free[buffer.numel()].append(buffer)


def _allocate(size: int) -> Tensor:
    return torch.frombuffer(huge_page_memory(4 * size), dtype=torch.float32)
