"""Maps weights between Hugging Face and this project. Pure functions of tensors; the architectures define the names.

    SAME          ours = theirs
    TRANSPOSED    ours = theirs.T                             GPT-2 stores (in, out)
    JOINED        ours = cat(theirs[0], theirs[1], ...)       q, k, v in three tensors -> [all Q | all K | all V]
    SPLIT         cat(ours[0], ours[1], ...) = theirs         gate and up in one tensor -> fc_1, fc_2
    INTERLEAVED   rows q0 k0 v0 q1 k1 v1 ... -> [all Q | all K | all V]                       GPT-NeoX, head by head
    STACKED       stack(ours[0], ours[1], ...) = theirs       all experts in one tensor (GGUF)

Every layout is a permutation of elements, so a round trip is bit-equal. It also works on the meta device: the same code
predicts shapes and converts weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING

from litgpt_core.model.structure import BlockStructure, LinearPart, Parameter, structure

if TYPE_CHECKING:
    from torch import Tensor

    from litgpt_core.model.config import GPTConfig


class WeightLayout(Enum):
    """How the two layouts differ; see the module docstring."""

    SAME = auto()
    TRANSPOSED = auto()
    JOINED = auto()
    SPLIT = auto()
    INTERLEAVED = auto()
    STACKED = auto()


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One correspondence: `ours` and `theirs` are names of one or several tensors."""

    ours: tuple[str, ...]
    theirs: tuple[str, ...]
    layout: WeightLayout = WeightLayout.SAME
    parts: tuple[int, ...] = ()
    """JOINED and SPLIT: rows of each of the several tensors."""
    heads: int = 0
    """INTERLEAVED: attention heads."""

    def to_ours(self, theirs: Sequence[Tensor]) -> list[Tensor]:
        """Their tensors, in the order of `self.theirs`, as ours."""
        import torch

        if self.layout is WeightLayout.JOINED:
            return [torch.cat(list(theirs))]
        (tensor,) = theirs
        if self.layout is WeightLayout.SPLIT:
            return [part.clone() for part in torch.split(tensor, list(self.parts))]
        if self.layout is WeightLayout.STACKED:
            return list(tensor.unbind())
        if self.layout is WeightLayout.TRANSPOSED:
            return [tensor.t().contiguous()]
        if self.layout is WeightLayout.INTERLEAVED:
            return [_swap(tensor, self.heads, 3)]
        return [tensor]

    def to_theirs(self, ours: Sequence[Tensor]) -> list[Tensor]:
        """Our tensors, in the order of `self.ours`, as theirs."""
        import torch

        if self.layout is WeightLayout.SPLIT:
            return [torch.cat(list(ours))]
        if self.layout is WeightLayout.STACKED:
            return [torch.stack(list(ours))]
        (tensor,) = ours
        if self.layout is WeightLayout.JOINED:
            return [part.clone() for part in torch.split(tensor, list(self.parts))]
        if self.layout is WeightLayout.TRANSPOSED:
            return [tensor.t().contiguous()]
        if self.layout is WeightLayout.INTERLEAVED:
            return [_swap(tensor, 3, self.heads)]
        return [tensor]


def _swap(tensor: Tensor, first: int, second: int) -> Tensor:
    """Rows indexed as (first, second, rest), reordered to (second, first, rest)."""
    counted = tensor.reshape(first, second, -1, *tensor.shape[1:])
    return counted.transpose(0, 1).reshape(tensor.shape)


@dataclass(frozen=True)
class Theirs:
    """A part's Hugging Face name, if its layout differs."""

    name: str
    layout: WeightLayout


Names = Mapping[str, "str | tuple[str, ...] | Theirs"]
"""Our part -> its Hugging Face name. A tuple: one tensor for each row group (query, key, value). Parts of one block
with the same name: their rows are concatenated in one tensor (gate, up). Experts are named without their number."""


def named_rules(config: GPTConfig, *, layers: str, names: Names) -> Iterator[Rule]:
    """The rules of a whole model from the Hugging Face names of its parts; `structure` defines shapes and biases.

    Args:
        config: Determines the parts of the model.
        layers: Hugging Face prefix of a block, with `{}` for its number.
        names: Names of all parts; those in blocks without the prefix.
    """
    model = structure(config)
    for embedding in model.embeddings:
        yield from _one(embedding.parameters(), embedding.name, embedding.name, names)
    for layer in model.layers:
        prefix = layers.format(layer.index)
        for part in layer.parts:
            if isinstance(part, LinearPart) and part.expert is not None:
                if part.expert == 0:
                    yield from _experts(layer, part, f"{prefix}.{names[_without_number(part)]}")
                continue
            there = names[part.name]
            together = [each for each in layer.linears if each.expert is None and names[each.name] == there]
            if isinstance(there, tuple):
                assert isinstance(part, LinearPart) and len(there) == len(part.row_groups)
                rows = tuple(number for _, number in part.row_groups)
                for parameter in part.parameters():
                    kind = parameter.name.rpartition(".")[2]
                    theirs = tuple(f"{prefix}.{name}.{kind}" for name in there)
                    yield Rule(
                        ours=(layer.path(parameter.name),), theirs=theirs, layout=WeightLayout.JOINED, parts=rows
                    )
            elif len(together) < 2:
                yield from _one(part.parameters(), part.name, layer.path(part.name), names, prefix, config.n_head)
            elif part is together[0]:
                rows = tuple(each.rows for each in together)
                for kind in ("weight", "bias") if together[0].bias else ("weight",):
                    ours = tuple(layer.path(f"{each.name}.{kind}") for each in together)
                    yield Rule(ours=ours, theirs=(f"{prefix}.{there}.{kind}",), layout=WeightLayout.SPLIT, parts=rows)
    for name, parameters in ((p.name, p.parameters()) for p in (model.last_norm, model.head)):
        yield from _one(parameters, name, name, names)


def _without_number(part: LinearPart) -> str:
    """`mlp.experts.3.fc_1` -> `mlp.experts.fc_1`."""
    return part.name.replace(f".{part.expert}.", ".", 1)


def _experts(layer: BlockStructure, part: LinearPart, theirs: str) -> Iterator[Rule]:
    """One layer of all experts, in one tensor."""
    same = [
        each for each in layer.linears if each.expert is not None and _without_number(each) == _without_number(part)
    ]
    for parameter in part.parameters():
        kind = parameter.name.rpartition(".")[2]
        ours = tuple(layer.path(f"{each.name}.{kind}") for each in same)
        yield Rule(ours=ours, theirs=(f"{theirs}.{kind}",), layout=WeightLayout.STACKED)


def _one(
    parameters: Iterator[Parameter], part: str, ours: str, names: Names, prefix: str = "", heads: int = 0
) -> Iterator[Rule]:
    """Weight and bias of a part that corresponds to a single part. Biases are not transposed."""
    there = names[part]
    name, layout = (there.name, there.layout) if isinstance(there, Theirs) else (str(there), WeightLayout.SAME)
    theirs = f"{prefix}.{name}" if prefix else name
    for parameter in parameters:
        kind = parameter.name.rpartition(".")[2]
        chosen = WeightLayout.SAME if layout is WeightLayout.TRANSPOSED and kind == "bias" else layout
        yield Rule(
            ours=(f"{ours}.{kind}",),
            theirs=(f"{theirs}.{kind}",),
            layout=chosen,
            heads=heads if chosen is WeightLayout.INTERLEAVED else 0,
        )
