"""Block reconstruction: every block of integers is trained to the output of its source (BRECQ, arXiv 2102.05426).

    source      x  --block 0--> t_0 --block 1--> t_1 ...      float weights, its own inputs
    integers    x  --block 0--> y_0 --block 1--> y_1 ...      what the trained integer blocks before produce

    loss        mean over tokens of |y - t|^2 / |t|^2
    weights     W = s r clamp(round(u)): u in steps of the grid, straight through the rounding; s the scales before
    scales      r, one per scale; its gradient is that of LSQ (arXiv 1902.08153)

A target of the block's own width at every token says far more than the loss of the whole model does in as many steps,
and a step is one block long. Norms and biases of the block are trained too. In memory are the activations between two
blocks, of both models.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from litgpt_core.checkpoint.compressed_matrices import IntegerMatrix
from litgpt_core.compression.healing import products_in_bfloat16, within_cells
from litgpt_core.compression.state import WorkingModel
from litgpt_core.compression.training_settings import Reconstruct
from litgpt_core.compression.walk import Stream
from litgpt_core.core.freed_memory import keep_freed_memory
from litgpt_core.model import grid
from litgpt_core.model.gpt import GPT
from litgpt_core.model.grid import Grid

logger = logging.getLogger(__name__)

WARMUP = 0.1
"""Share of the steps in which the learning rates rise; they fall linearly to 0 afterwards."""
INSIDE = 0.45
"""See `healing.INSIDE`: 48 small steps hardly ever reach the edge from 0.4 (docs/log.md)."""


class _Rounded(torch.autograd.Function):
    """(O, G, 32) weights in steps of the grid, (O, G) scales and their ratios -> (O, G, 32) weights."""

    @staticmethod
    def forward(ctx: Any, steps: Tensor, scales: Tensor, ratios: Tensor, bits: int) -> Tensor:
        ctx.save_for_backward(steps, scales)
        ctx.bits = bits
        kind = Grid(bits)
        return steps.round().clamp_(kind.lowest, kind.highest).mul_((scales * ratios).unsqueeze(-1))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        steps, scales = ctx.saved_tensors
        kind = Grid(ctx.bits)
        of_steps = gradient * scales.unsqueeze(-1)
        codes = steps.round()
        inside = (codes >= kind.lowest) & (codes <= kind.highest)
        difference = codes.clamp_(kind.lowest, kind.highest).sub_(steps * inside)
        return of_steps, None, (of_steps * difference).sum(-1), None


class GridLinear(nn.Module):
    """A linear layer with rounded weights whose steps and scales are trained.

    Args:
        base: Its bias is shared.
        matrix: The codes to begin with.
        near: (O, K) weights behind them.
        bits: See `Grid`.
    """

    def __init__(self, base: nn.Linear, matrix: IntegerMatrix, *, near: Tensor, bits: int) -> None:
        super().__init__()
        self.bits, self.columns, self.bias = bits, near.size(1), base.bias
        scales = matrix.unpacked()[1].float()
        self.scales = scales
        inverse = torch.where(scales == 0, 0.0, 1.0 / torch.where(scales == 0, 1.0, scales))
        self.steps = nn.Parameter(grid.grouped(near) * inverse.unsqueeze(-1))
        self.ratios = nn.Parameter(torch.ones_like(scales))

    def forward(self, x: Tensor) -> Tensor:
        """(..., K) -> (..., O)"""
        weight: Tensor = _Rounded.apply(self.steps, self.scales, self.ratios, self.bits)
        return functional.linear(x, weight.flatten(-2)[:, : self.columns], self.bias)

    @torch.no_grad()
    def matrix(self) -> IntegerMatrix:
        """Its stored form."""
        kind = Grid(self.bits)
        codes = self.steps.round().clamp_(kind.lowest, kind.highest).flatten(-2)
        scales = grid.stored_scales(self.scales * self.ratios)
        return IntegerMatrix.packed(codes, scales, stored_bits=kind.stored_bits, columns=self.columns)

    @torch.no_grad()
    def hidden_weight(self) -> Tensor:
        """(O, K) weights behind the codes."""
        return (self.steps * (self.scales * self.ratios).unsqueeze(-1)).flatten(-2)[:, : self.columns]


def reconstruct(work: WorkingModel, step: Reconstruct, *, source: GPT, windows: Tensor) -> None:
    """Train the integers of every block; their codes and scales change.

    Args:
        work: After a step that rounds; `unrounded` holds the weights before it.
        step: The settings.
        source: The model before its integers, with equal activations between its blocks.
        windows: (N, T) ids.
    """
    keep_freed_memory()
    work.model.requires_grad_(False)
    fast = products_in_bfloat16("cpu")
    order, first, last = _orders(-(-len(windows) // step.batch), step.seed), [], []
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=fast):
        wanted = Stream(WorkingModel(source), windows, batch=step.batch)
        given = Stream(work, windows, batch=step.batch)
    for index, layer in enumerate(work.parts.layers):
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=fast):
            wanted.advance(index)
        layers = _insert(work, [layer.path(part.name) for part in layer.linears], bits=step.bits)
        losses = _train(work.model.transformer.h[index], step, given, wanted, index=index, order=order, fast=fast)
        for path, trained in layers.items():
            _put(work.model, path, _plain(trained))
            work.store(path, trained.matrix())
            if work.unrounded is not None:
                work.unrounded[path] = trained.hidden_weight()
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=fast):
            given.advance(index)
        share = max(1, step.steps // 8)
        first.append(sum(losses[:share]) / share)
        last.append(sum(losses[-share:]) / share)
        logger.info("reconstruct: block %d, relative error %.5f -> %.5f", index, first[-1], last[-1])
    means = (sum(each) / len(each) for each in (first, last))
    work.notes.append("reconstruct: mean relative squared error of a block {:.5f} -> {:.5f}".format(*means))


def _orders(n: int, seed: int) -> Iterator[int]:
    """Endlessly the numbers below n, each as often, in random order."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield from torch.randperm(n, generator=generator).tolist()


def _insert(work: WorkingModel, paths: list[str], *, bits: int) -> dict[str, GridLinear]:
    found: dict[str, GridLinear] = {}
    for path in paths:
        if isinstance(matrix := work.matrices.get(path), IntegerMatrix):
            near = matrix.dense()
            if work.unrounded is not None and path in work.unrounded:
                codes, scales = (each.float() for each in matrix.unpacked())
                near = within_cells(work.unrounded[path], codes, scales, inside=INSIDE)
            found[path] = GridLinear(work.linear(path), matrix, near=near, bits=bits)
            _put(work.model, path, found[path])
    return found


def _train(
    block: nn.Module,
    step: Reconstruct,
    given: Stream,
    wanted: Stream,
    *,
    index: int,
    order: Iterator[int],
    fast: bool,
) -> list[float]:
    kinds: dict[str, list[Tensor]] = {"steps": [], "ratios": [], "others": []}
    for name, parameter in block.named_parameters():
        kind = name.rpartition(".")[2]
        if kind in kinds or parameter.dim() == 1:  # not the matrices that are no integers
            kinds.get(kind, kinds["others"]).append(parameter.requires_grad_(True))
    rates = {"steps": step.lr, "ratios": step.scale_lr, "others": step.norm_lr}
    groups = [{"params": found, "peak": rates[kind]} for kind, found in kinds.items() if found]
    optimizer = torch.optim.AdamW(groups, lr=step.lr, betas=(0.9, 0.95), weight_decay=0.0, fused=True)
    losses = []
    for number in range(step.steps):
        rate = min(1.0, (number + 1) / max(1.0, WARMUP * step.steps)) * (1 - number / step.steps)
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * rate
        part = next(order)
        with torch.enable_grad():
            with torch.autocast("cpu", torch.bfloat16, enabled=fast):
                y = block(given.x[part], *given.arguments[index])
            target = wanted.x[part].float()
            loss = ((y.float() - target).square().sum(-1) / target.square().sum(-1)).mean()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    block.requires_grad_(False)
    return losses


def _put(model: GPT, path: str, module: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, module)


def _plain(layer: GridLinear) -> nn.Linear:
    outputs = len(layer.scales)
    plain = nn.Linear(layer.columns, outputs, bias=False, device="meta")
    plain.weight, plain.bias = nn.Parameter(torch.empty(outputs, layer.columns), requires_grad=False), layer.bias
    return plain
