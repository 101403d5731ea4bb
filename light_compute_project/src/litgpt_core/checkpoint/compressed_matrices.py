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
    narrower: int | None = None
    """K, where groups do not divide it."""

    @classmethod
    def of(cls, weight: Tensor, scales: Tensor, *, bits: int) -> IntegerMatrix:
        """The nearest codes of (O, K) weights for given (O, G) scales, which are float16 numbers."""
        kind = Grid(bits)
        codes = kind.codes(grid.grouped(weight), scales).flatten(-2)
        return cls.packed(codes, scales, stored_bits=kind.stored_bits, columns=weight.size(1))

    @classmethod
    def packed(cls, codes: Tensor, scales: Tensor, *, stored_bits: int, columns: int) -> IntegerMatrix:
        """(O, 32 G) codes and (O, G) scales of a matrix with `columns` inputs."""
        narrower = columns if columns % grid.GROUP else None
        return cls(*grid.pack(codes, scales, stored_bits=stored_bits), rows=len(codes), narrower=narrower)

    @property
    def columns(self) -> int:
        """K."""
        return self.narrower or self.codes.size(1) * grid.GROUP

    @property
    def facts(self) -> dict[str, Any]:
        """For compression.yaml."""
        bits = 8 if self.codes.size(2) == 8 else 4
        width = {"columns": self.narrower} if self.narrower else {}
        return {"kind": "integer", "bits": bits, "group": grid.GROUP, "rows": self.rows, **width}

    def tensors(self) -> dict[str, Tensor]:
        """What the file stores."""
        return {"codes": self.codes, "scales": self.scales}

    def dense(self) -> Tensor:
        """(O, K) float32."""
        return grid.dequantize(*self.unpacked())

    def unpacked(self) -> tuple[Tensor, Tensor]:
        """(O, K) int8 codes and (O, G) float16 scales."""
        return grid.unpack(self.codes, self.scales, outputs=self.rows, columns=self.narrower)


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
        return IntegerMatrix(parts["codes"], parts["scales"], facts["rows"], facts.get("columns"))
    if facts["kind"] == "low_rank":
        return LowRankMatrix(parts["down"], parts["up"])
    return SparseMatrix(parts["values"], parts["places"], facts["n"], facts["m"])
