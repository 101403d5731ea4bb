"""The stored forms of a compressed matrix: integers, low rank, N:M sparse; what a file holds of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from litgpt_core.model import grid
from litgpt_core.model.grid import Grid
from litgpt_core.model.sparse import unpack_sparse


@dataclass(frozen=True)
class IntegerMatrix:
    """Packed codes and scales: see `model.grid`."""

    codes: Tensor
    scales: Tensor
    rows: int

    @classmethod
    def of(cls, weight: Tensor, scales: Tensor, *, bits: int) -> IntegerMatrix:
        """The nearest codes of (O, K) weights for given (O, G) scales, which are float16 numbers."""
        kind = Grid(bits)
        codes = kind.codes(grid.grouped(weight), scales).flatten(-2)
        return cls(*grid.pack(codes, scales, stored_bits=kind.stored_bits), rows=weight.size(0))

    @property
    def facts(self) -> dict[str, Any]:
        """For compression.yaml."""
        return {"kind": "integer", "bits": 8 if self.codes.size(2) == 8 else 4, "group": grid.GROUP, "rows": self.rows}

    def tensors(self) -> dict[str, Tensor]:
        """What the file stores."""
        return {"codes": self.codes, "scales": self.scales}

    def dense(self) -> Tensor:
        """(O, K) float32."""
        return grid.dequantize(*grid.unpack(self.codes, self.scales, outputs=self.rows))


@dataclass(frozen=True)
class LowRankMatrix:
    """U V: see `model.low_rank`."""

    down: Tensor
    up: Tensor

    @property
    def facts(self) -> dict[str, Any]:
        """For compression.yaml."""
        return {"kind": "low_rank", "rank": self.down.size(0)}

    def tensors(self) -> dict[str, Tensor]:
        """What the file stores."""
        return {"down": self.down, "up": self.up}

    def dense(self) -> Tensor:
        """(O, K) float32."""
        return self.up.float() @ self.down.float()


@dataclass(frozen=True)
class SparseMatrix:
    """N:M sparse: see `model.sparse`."""

    values: Tensor
    places: Tensor
    n: int
    m: int

    @property
    def facts(self) -> dict[str, Any]:
        """For compression.yaml."""
        return {"kind": "sparse", "n": self.n, "m": self.m}

    def tensors(self) -> dict[str, Tensor]:
        """What the file stores."""
        return {"values": self.values, "places": self.places}

    def dense(self) -> Tensor:
        """(O, K) in the dtype of the values."""
        return unpack_sparse(self.values, self.places, n=self.n, m=self.m)


CompressedMatrix = IntegerMatrix | LowRankMatrix | SparseMatrix

PARTS = {"integer": ("codes", "scales"), "low_rank": ("down", "up"), "sparse": ("values", "places")}
"""Kind of a matrix -> the names of its tensors."""


def matrix_of(facts: Mapping[str, Any], parts: dict[str, Tensor]) -> CompressedMatrix:
    """The matrix that compression.yaml describes by `facts`. Raises KeyError if a fact is missing."""
    if facts["kind"] == "integer":
        return IntegerMatrix(parts["codes"], parts["scales"], facts["rows"])
    if facts["kind"] == "low_rank":
        return LowRankMatrix(parts["down"], parts["up"])
    return SparseMatrix(parts["values"], parts["places"], facts["n"], facts["m"])
