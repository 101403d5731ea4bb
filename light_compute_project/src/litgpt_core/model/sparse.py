"""N:M sparsity: of every M adjacent weights of a row at most N are not zero, and only those are stored.

    weights (O, K)  ->  values (O, K * N / M) in the weights' dtype, places (O, K * N / M) of 0..M-1 in 2 or 4 bits

2:4 in bfloat16 takes 9/16 of the dense bytes. The matrix is expanded when a model is loaded: the file is smaller,
memory and speed are those of the dense model, because no processor here multiplies by the packed form faster.
"""

from __future__ import annotations

import torch
from torch import Tensor

from litgpt_core.core.errors import ConfigError


def check_pattern(n: int, m: int, *, columns: int, name: str) -> None:
    """Raise ConfigError unless N:M divides a matrix of this width and can be packed."""
    if m not in (4, 8, 16) or not 0 < n < m or n % 2 or columns % m or columns * n // m % 4:
        raise ConfigError(
            f"{n}:{m} sparsity for {name} with {columns} inputs.",
            needed="an even N below M, M of 4, 8 or 16, and a width that M divides",
            fix="pattern: 2:4",
        )


def pack_sparse(weight: Tensor, *, n: int, m: int) -> tuple[Tensor, Tensor]:
    """(O, K) with at most N nonzeros of every M -> values (O, K N / M) and packed places, uint8."""
    blocks = _blocks(weight, m)
    order = (blocks == 0).to(torch.uint8).argsort(dim=-1, stable=True)[..., :n].sort(dim=-1).values  # nonzeros first
    if int((weight != 0).sum()) != int((blocks.gather(-1, order) != 0).sum()):
        raise ValueError(f"the matrix has more than {n} nonzeros in a block of {m}")
    values, places = blocks.gather(-1, order).flatten(-2), order.flatten(-2).to(torch.uint8)
    width = place_bits(m)
    per_byte = 8 // width
    shifts = torch.arange(per_byte, dtype=torch.uint8) * width
    packed = (_blocks(places, per_byte) << shifts).sum(dim=-1, dtype=torch.uint8)
    return values.contiguous(), packed.contiguous()


def unpack_sparse(values: Tensor, packed: Tensor, *, n: int, m: int) -> Tensor:
    """The dense matrix (O, K) of `pack_sparse`."""
    width = place_bits(m)
    shifts = torch.arange(8 // width, dtype=torch.uint8) * width
    places = (packed.unsqueeze(-1) >> shifts & (2**width - 1)).flatten(-2)  # (O, K N / M)
    blocks = values.new_zeros(values.size(0), values.size(1) // n, m)
    return blocks.scatter_(-1, _blocks(places, n).long(), _blocks(values, n)).flatten(-2)


def place_bits(m: int) -> int:
    """Bits of a place among M."""
    return 2 if m == 4 else 4


def _blocks(matrix: Tensor, size: int) -> Tensor:
    """(O, n) -> (O, n / size, size)"""
    return matrix.reshape(matrix.size(0), -1, size)
