"""The packed layout of a weight matrix for `kernels/packed_weights.hpp`, which multiplies many rows by it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class PackedLayout:
    """Groups of 2 * lanes outputs, one after the other; the last group and K are padded with zeros.

    A group of a matrix (O, K) is (K, 2, lanes) in float32. In bfloat16 it is (K, lanes, 2), or where the processor
    multiplies pairs of k (K / 2, 2, lanes, 2), whose last dimension is k.
    """

    lanes: int
    """Vector width of the kernel, in floats."""
    bf16_depth: int
    """1, or 2 for pairs of k."""

    def shape(self, matrix: Tensor) -> tuple[int, ...]:
        """Shape of the packed form of a matrix (O, K)."""
        outputs, size = matrix.shape
        groups, rows = -(-outputs // (2 * self.lanes)), -(-size // self._depth(matrix))
        if matrix.dtype == torch.float32:
            return groups, rows, 2, self.lanes
        return (groups, rows, self.lanes, 2) if self.bf16_depth == 1 else (groups, rows, 2, self.lanes, 2)

    def pack(self, matrix: Tensor, *, out: Tensor) -> None:
        """Pack a matrix (O, K) into `out`, a tensor of its `shape`."""
        outputs, size = matrix.shape
        groups, rows, depth = out.size(0), out.size(1), self._depth(matrix)
        padded = torch.zeros(groups * 2 * self.lanes, rows * depth, dtype=matrix.dtype)
        padded[:outputs, :size] = matrix
        parts = padded.view(groups, 2, self.lanes, rows, depth)
        half_last = matrix.dtype == torch.bfloat16 and depth == 1
        out.copy_(parts.permute((0, 3, 2, 1, 4) if half_last else (0, 3, 1, 2, 4)).reshape(out.shape))

    def _depth(self, matrix: Tensor) -> int:
        return self.bf16_depth if matrix.dtype == torch.bfloat16 else 1
