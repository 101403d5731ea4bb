"""One pass of the calibration windows through the model, block after block, in which every block is compressed.

    windows --embedding--> x --> block 0: collect inputs, compress, run again --> x --> block 1: ... --> x --> head

A block is compressed with the inputs that it will have: those that the compressed blocks before it produce. In memory
are the activations between two blocks and the statistics of one.

    Inputs   of everything that reads one activation ("norm_1", "hidden", ...; `LinearPart.reads`)
      moment    (K, K)   X^T X / tokens
      mean      (K,)     mean |x|
      largest   (K,)     max |x|
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from litgpt_core.compression.state import WorkingModel
from litgpt_core.model.structure import BlockStructure


@dataclass
class Inputs:
    """Statistics of one activation; see the module."""

    moment: Tensor
    mean: Tensor
    largest: Tensor
    tokens: int = 0

    @classmethod
    def empty(cls, width: int) -> Inputs:
        """Of no tokens."""
        return cls(torch.zeros(width, width), torch.zeros(width), torch.zeros(width))

    def add(self, x: Tensor) -> None:
        """Include activations (..., K)."""
        rows = x.detach().reshape(-1, x.size(-1)).float()
        n = len(rows)
        share = n / (self.tokens + n)
        self.moment.mul_(1 - share).addmm_(rows.T, rows, alpha=share / n)
        self.mean.mul_(1 - share).add_(rows.abs().mean(0), alpha=share)
        self.largest = torch.maximum(self.largest, rows.abs().amax(0))
        self.tokens += n

    def divide(self, scales: Tensor) -> None:
        """Become the statistics of x / scales, (K,)."""
        self.moment.div_(scales).div_(scales.unsqueeze(1))
        self.mean.div_(scales)
        self.largest.div_(scales)


@dataclass
class BlockContext:
    """A block that is being compressed."""

    work: WorkingModel
    structure: BlockStructure
    inputs: dict[str, Inputs]
    """By `LinearPart.reads`; empty for steps without calibration."""

    def path(self, name: str) -> str:
        """Module path of a part."""
        return self.structure.path(name)

    def linear(self, name: str) -> nn.Linear:
        """A linear layer of this block."""
        return self.work.linear(self.path(name))


BlockStep = Callable[[BlockContext], None]
HeadStep = Callable[[WorkingModel, Inputs | None], None]


@dataclass(frozen=True)
class Action:
    """What one step of a recipe does to every block, and to the head after the last one."""

    block: BlockStep
    calibrated: bool
    head: HeadStep | None = None
    keeps_inputs: bool = False
    """The statistics that it was given are still right afterwards: it divided those of activations that it scaled."""


@torch.no_grad()
def walk(work: WorkingModel, actions: list[Action], *, windows: Tensor | None, batch: int = 8) -> None:
    """Apply actions to every block in order.

    Args:
        work: Changed in place.
        actions: In order; each finds the block as the one before left it.
        windows: (N, T) calibration ids; None where no action needs them.
        batch: Windows at a time.
    """
    stream = None if windows is None else Stream(work, windows, batch=batch)
    for index, layer in enumerate(work.parts.layers):
        known: dict[str, Inputs] = {}
        for action in actions:
            if stream is not None and action.calibrated:
                known = known or stream.inputs(index, layer)
            action.block(BlockContext(work, layer, known if action.calibrated else {}))
            known = known if action.keeps_inputs else {}
        if stream is not None:
            stream.advance(index)
    for action in actions:
        if action.head is not None:
            action.head(work, None if stream is None else stream.head_inputs())


class Stream:
    """Activations between two blocks, for all windows."""

    def __init__(self, work: WorkingModel, windows: Tensor, *, batch: int) -> None:
        self.work, self.blocks = work, work.model.transformer.h
        self.arguments: list[tuple[object, ...]] = []
        self.x: list[Tensor] = []
        for begin in range(0, len(windows), batch):
            self._enter(windows[begin : begin + batch], first=not begin)

    def _enter(self, ids: Tensor, *, first: bool) -> None:
        """Record the input of block 0 and, once, the other arguments of all blocks, which are equal for all windows."""
        caught: list[tuple[object, ...]] = []

        def catch(_: nn.Module, arguments: tuple[object, ...]) -> None:
            caught.append(arguments)
            if not first:
                raise _Stop

        hooks = [block.register_forward_pre_hook(catch) for block in self.blocks]
        try:
            self.work.model.transformer(ids[:1] if first else ids)
        except _Stop:
            pass
        finally:
            for hook in hooks:
                hook.remove()
        if first:
            self.arguments = [arguments[1:] for arguments in caught]
            self._enter(ids, first=False)
        else:
            x = caught[0][0]
            assert isinstance(x, Tensor)
            self.x.append(x)

    def inputs(self, index: int, layer: BlockStructure) -> dict[str, Inputs]:
        """Statistics of every activation that a linear layer of this block reads."""
        found: dict[str, Inputs] = {}
        hooks = []
        for part in layer.linears:
            if part.reads not in found:
                found[part.reads] = Inputs.empty(part.columns)
                hooks.append(
                    self.work.linear(layer.path(part.name)).register_forward_pre_hook(_adder(found[part.reads]))
                )
        for x in self.x:
            self.blocks[index](x, *self.arguments[index])
        for hook in hooks:
            hook.remove()
        return found

    def advance(self, index: int) -> None:
        """Replace every activation by the output of this block."""
        self.x = [self.blocks[index](x, *self.arguments[index]) for x in self.x]

    def head_inputs(self) -> Inputs:
        """Statistics of what the head reads."""
        found = Inputs.empty(self.work.model.config.n_embd)
        for x in self.x:
            found.add(self.work.model.transformer.ln_f(x))
        return found


class _Stop(Exception):
    """Ends a forward pass after the part that is needed."""


def _adder(inputs: Inputs) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    def add(_: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        inputs.add(arguments[0])

    return add
