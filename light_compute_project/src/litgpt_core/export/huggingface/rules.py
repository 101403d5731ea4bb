"""How one weight there corresponds to one weight here. Pure functions of tensors; names come from the architectures.

    SAME          ours = theirs
    TRANSPOSED    ours = theirs.T                             GPT-2 stores (in, out)
    JOINED        ours = theirs[0] over theirs[1] ...         q, k, v in three tensors -> [all Q | all K | all V]
    SPLIT         ours[0] over ours[1] ... = theirs           gate and up in one tensor -> fc_1, fc_2
    INTERLEAVED   rows q0 k0 v0 q1 k1 v1 ... -> [all Q | all K | all V]                       GPT-NeoX, head by head

Every layout is a permutation of elements, so a way there and back is bit-equal, and works on the meta device: shapes
are predicted by the same code that moves the weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


class Layout(Enum):
    """How the two sides differ; see the module's docstring."""

    SAME = auto()
    TRANSPOSED = auto()
    JOINED = auto()
    SPLIT = auto()
    INTERLEAVED = auto()


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One correspondence: `ours` and `theirs` are names of one or several tensors."""

    ours: tuple[str, ...]
    theirs: tuple[str, ...]
    layout: Layout = Layout.SAME
    parts: tuple[int, ...] = ()
    """JOINED and SPLIT: rows of each of the several tensors."""
    heads: int = 0
    """INTERLEAVED: attention heads."""

    def to_ours(self, theirs: Sequence[Tensor]) -> list[Tensor]:
        """Their tensors, in the order of `self.theirs`, as ours."""
        import torch

        if self.layout is Layout.JOINED:
            return [torch.cat(list(theirs))]
        (tensor,) = theirs
        if self.layout is Layout.SPLIT:
            return [part.clone() for part in torch.split(tensor, list(self.parts))]
        if self.layout is Layout.TRANSPOSED:
            return [tensor.t().contiguous()]
        if self.layout is Layout.INTERLEAVED:
            return [_swap(tensor, self.heads, 3)]
        return [tensor]

    def to_theirs(self, ours: Sequence[Tensor]) -> list[Tensor]:
        """Our tensors, in the order of `self.ours`, as theirs."""
        import torch

        if self.layout is Layout.SPLIT:
            return [torch.cat(list(ours))]
        (tensor,) = ours
        if self.layout is Layout.JOINED:
            return [part.clone() for part in torch.split(tensor, list(self.parts))]
        if self.layout is Layout.TRANSPOSED:
            return [tensor.t().contiguous()]
        if self.layout is Layout.INTERLEAVED:
            return [_swap(tensor, 3, self.heads)]
        return [tensor]


def _swap(tensor: Tensor, first: int, second: int) -> Tensor:
    """Rows counted as (first, second, rest) recounted as (second, first, rest)."""
    counted = tensor.reshape(first, second, -1, *tensor.shape[1:])
    return counted.transpose(0, 1).reshape(tensor.shape)


def linear(ours: str, theirs: str, *, bias: bool, layout: Layout = Layout.SAME, heads: int = 0) -> Iterator[Rule]:
    """The rules of one layer's weight and, if it has one, bias. Biases have no columns to transpose."""
    yield Rule(ours=(f"{ours}.weight",), theirs=(f"{theirs}.weight",), layout=layout, heads=heads)
    if bias:
        layout = Layout.SAME if layout is Layout.TRANSPOSED else layout
        yield Rule(ours=(f"{ours}.bias",), theirs=(f"{theirs}.bias",), layout=layout, heads=heads)


def joined(ours: str, theirs: Sequence[str], *, parts: Sequence[int], bias: bool) -> Iterator[Rule]:
    """The rules of one layer of ours that lies in several of theirs, `parts` rows each."""
    for kind in ("weight", "bias") if bias else ("weight",):
        names = tuple(f"{name}.{kind}" for name in theirs)
        yield Rule(ours=(f"{ours}.{kind}",), theirs=names, layout=Layout.JOINED, parts=tuple(parts))
