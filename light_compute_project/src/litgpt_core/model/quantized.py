"""Layers whose weights are integers: `QuantLinear` and `QuantEmbedding` over one `PackedMatrix`, which both may share.

A packed matrix consists of buffers and no parameter, so no optimizer and no cast to another dtype touches it. In
PyTorch a layer multiplies by the dequantized weights; the CPU kernel (`generation.kernel`) reads the packed bytes and
rounds activations to 8 bits per group of 32, which `int8_activations` imitates here.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from litgpt_core.model import grid


class PackedMatrix(nn.Module):
    """A matrix (O, K) as codes and scales in the layout of `grid`.

    Args:
        codes: (P, G, 8 or 4, 16, 4) uint8.
        scales: (P, G, 16) float16.
        rows: O.

    Attributes:
        like: An empty tensor: its dtype and device are those of the model, in which results are returned.
    """

    codes: Tensor
    scale_bits: Tensor
    like: Tensor

    def __init__(self, codes: Tensor, scales: Tensor, *, rows: int) -> None:
        super().__init__()
        self.rows, self.columns = rows, codes.size(1) * grid.GROUP
        self.register_buffer("codes", codes)
        self.register_buffer("scale_bits", scales.view(torch.int16))  # not a float, so that no cast rounds it
        self.register_buffer("like", torch.empty(0), persistent=False)

    @property
    def bits(self) -> int:
        """Bits of a stored code: 8 or 4."""
        return 8 if self.codes.size(2) == grid.GROUP // 4 else 4

    @property
    def scales(self) -> Tensor:
        """(P, G, 16) float16."""
        return self.scale_bits.view(torch.float16)

    def dequantize(self) -> Tensor:
        """(O, K) in the model's dtype."""
        codes, scales = grid.unpack(self.codes, self.scales, outputs=self.rows)
        return grid.dequantize(codes, scales).to(self.like.dtype)

    def rows_at(self, ids: Tensor) -> Tensor:
        """(...,) int64 -> (..., K) in the model's dtype."""
        flat = ids.flatten()
        strip, lane = flat // grid.STRIP, flat % grid.STRIP
        codes = grid.decoded(self.codes[strip, :, :, lane].unsqueeze(-2)).squeeze(-2)  # (N, G, 8, 4)
        found = codes.flatten(-2).float() * self.scales[strip, :, lane].float().unsqueeze(-1)  # (N, G, 32)
        return found.flatten(-2).to(self.like.dtype).view(*ids.shape, self.columns)


class QuantLinear(nn.Module):
    """y = W x + b with W a `PackedMatrix`.

    Args:
        matrix: W.
        bias: (O,) or None.
        int8_activations: Round activations as the CPU kernel does.
    """

    def __init__(self, matrix: PackedMatrix, *, bias: Tensor | None = None, int8_activations: bool = False) -> None:
        super().__init__()
        self.matrix = matrix
        self.in_features, self.out_features = matrix.columns, matrix.rows
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)
        self.int8_activations = int8_activations

    def forward(self, x: Tensor) -> Tensor:
        """(..., K) -> (..., O)"""
        if self.int8_activations:
            x = grid.dequantize(*grid.activation_codes(x)).to(x.dtype)
        return functional.linear(x, self.matrix.dequantize(), self.bias)


class QuantEmbedding(nn.Module):
    """Rows of a `PackedMatrix`."""

    def __init__(self, matrix: PackedMatrix) -> None:
        super().__init__()
        self.matrix = matrix
        self.num_embeddings, self.embedding_dim = matrix.rows, matrix.columns

    def forward(self, ids: Tensor) -> Tensor:
        """(...,) int64 -> (..., K)"""
        return self.matrix.rows_at(ids)
