"""Layers whose weights are integers: `QuantLinear` and `QuantEmbedding` over one `PackedMatrix`, which both may share.

A packed matrix consists of buffers and no parameter, so no optimizer and no cast to another dtype touches it. In
PyTorch a layer multiplies by the dequantized weights; the CPU kernel (`generation.kernel`) reads the packed bytes and
rounds activations to 8 bits per group of 32, which `int8_activations` imitates here.
"""

from __future__ import annotations

from typing import Any

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
        columns: K; None: 32 G.

    Attributes:
        like: An empty tensor: its dtype and device are those of the model, in which results are returned.
    """

    codes: Tensor
    scale_bits: Tensor
    like: Tensor

    def __init__(self, codes: Tensor, scales: Tensor, *, rows: int, columns: int | None = None) -> None:
        super().__init__()
        self.rows, self.columns = rows, columns or codes.size(1) * grid.GROUP
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
        codes, scales = grid.unpack(self.codes, self.scales, outputs=self.rows, columns=self.columns)
        return grid.dequantize(codes, scales).to(self.like.dtype)

    def rows_at(self, ids: Tensor) -> Tensor:
        """(...,) int64 -> (..., K) in the model's dtype."""
        flat = ids.flatten()
        strip, lane = flat // grid.STRIP, flat % grid.STRIP
        codes = grid.decoded(self.codes[strip, :, :, lane].unsqueeze(-2)).squeeze(-2)  # (N, G, 8, 4)
        found = codes.flatten(-2).float() * self.scales[strip, :, lane].float().unsqueeze(-1)  # (N, G, 32)
        return found.flatten(-2)[:, : self.columns].to(self.like.dtype).view(*ids.shape, self.columns)


class _PackedProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, matrix: PackedMatrix) -> Tensor:
        ctx.matrix, ctx.dtype = matrix, x.dtype
        return functional.linear(x, matrix.dequantize())

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, None]:
        (y,) = gradients
        return (y @ ctx.matrix.dequantize().to(y.dtype)).to(ctx.dtype), None


def packed_product(x: Tensor, matrix: PackedMatrix) -> Tensor:
    """(..., K) -> (..., O). The backward pass dequantizes the matrix again instead of keeping it."""
    y: Tensor = _PackedProduct.apply(x, matrix)
    return y


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
        """(..., K) -> (..., O). Gradients pass straight through the rounding of activations."""
        if self.int8_activations:
            near = grid.dequantize(*grid.activation_codes(x.detach())).to(x.dtype)
            x = x + (near - x).detach() if x.requires_grad else near
        y = packed_product(x, self.matrix)
        return y if self.bias is None else y + self.bias


class QuantEmbedding(nn.Module):
    """Rows of a `PackedMatrix`."""

    def __init__(self, matrix: PackedMatrix) -> None:
        super().__init__()
        self.matrix = matrix
        self.num_embeddings, self.embedding_dim = matrix.rows, matrix.columns

    def forward(self, ids: Tensor) -> Tensor:
        """(...,) int64 -> (..., K)"""
        return self.matrix.rows_at(ids)
