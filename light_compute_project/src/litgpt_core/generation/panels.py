"""The order of a weight matrix that `kernels/panels.hpp` multiplies many lines by. Knows no model."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class PanelOrder:
    """Panels of 2 * lanes outputs each, one after the other; outputs and k that fill up are 0.

    A panel of a matrix (O, K) is (K, 2, lanes) in float32. In bfloat16 it is (K, lanes, 2), or where the processor
    multiplies pairs of k (K / 2, 2, lanes, 2), whose last dimension is k.
    """

    lanes: int
    """Of the kernel's vectors, in floats."""
    bf16_depth: int
    """1, or 2 for pairs of k."""

    def shape(self, matrix: Tensor) -> tuple[int, ...]:
        """Of the panels of a matrix (O, K)."""
        outputs, size = matrix.shape
        groups, rows = -(-outputs // (2 * self.lanes)), -(-size // self._depth(matrix))
        if matrix.dtype == torch.float32:
            return groups, rows, 2, self.lanes
        return (groups, rows, self.lanes, 2) if self.bf16_depth == 1 else (groups, rows, 2, self.lanes, 2)

    def fill(self, panels: Tensor, matrix: Tensor) -> None:
        """Put a matrix (O, K) into panels of its `shape`."""
        outputs, size = matrix.shape
        groups, rows, depth = panels.size(0), panels.size(1), self._depth(matrix)
        whole = torch.zeros(groups * 2 * self.lanes, rows * depth, dtype=matrix.dtype)
        whole[:outputs, :size] = matrix
        parts = whole.view(groups, 2, self.lanes, rows, depth)
        half_last = matrix.dtype == torch.bfloat16 and depth == 1
        panels.copy_(parts.permute((0, 3, 2, 1, 4) if half_last else (0, 3, 1, 2, 4)).reshape(panels.shape))

    def _depth(self, matrix: Tensor) -> int:
        return self.bf16_depth if matrix.dtype == torch.bfloat16 else 1
