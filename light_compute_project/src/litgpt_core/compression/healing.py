"""Training a compressed model against its source for a few steps: distillation, and quantization-aware training.

Losses are those of `model.distillation`: forward, reverse or jsd; ce is the text alone. Quantization-aware training is
`model.fake_quant`'s, with the scales of the step before, so the result has codes of the same grid as rounding after
training. Matrices that are stored already and not trained, such as the head, stay as they are.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Collection, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from litgpt_core.checkpoint.compressed_matrices import IntegerMatrix
from litgpt_core.compression.state import WorkingModel
from litgpt_core.compression.texts import Domain, window_length
from litgpt_core.compression.training_settings import Distill, Healing, Qat
from litgpt_core.core.errors import DataError
from litgpt_core.core.freed_memory import keep_freed_memory
from litgpt_core.core.machine import cpu_has_fast_bf16
from litgpt_core.model import grid
from litgpt_core.model.distillation import DIVERGENCES, check_teacher
from litgpt_core.model.fake_quant import FakeQuantLinear
from litgpt_core.model.gpt import GPT

logger = logging.getLogger(__name__)

WARMUP = 0.1
"""Share of the steps in which the learning rate rises; it falls linearly to 0 afterwards."""
CLIP = 1.0
AT_ONCE = 1 << 21
"""Logits whose divergence is computed together: they stay in a processor's cache."""
INSIDE = 0.4
"""How far from the middle of its cell a weight may begin, in steps of the grid; the edge is at 0.5 (docs/log.md)."""


def teacher_of(model: GPT) -> GPT:
    """A copy of `model` to train towards; matrices are bfloat16 already where autocast would round them every step."""
    teacher = copy.deepcopy(model).requires_grad_(False)
    if products_in_bfloat16(next(model.parameters()).device.type):
        for module in teacher.modules():
            if isinstance(module, nn.Linear):
                module.weight = nn.Parameter(module.weight.bfloat16(), requires_grad=False)
    return teacher


def products_in_bfloat16(device: str) -> bool:
    """Whether training multiplies in bfloat16: where the device does that in hardware."""
    return device != "cpu" or cpu_has_fast_bf16()


def distill(work: WorkingModel, step: Distill, *, teacher: GPT, domains: Sequence[Domain]) -> None:
    """Train all weights of the model towards `teacher`.

    Raises:
        ConfigError: The vocabularies differ.
        DataError: The text is shorter than a window.
    """
    check_teacher(work.model.config, teacher.config)
    first, last = _train(work.model, step, teacher=teacher, domains=domains)
    work.notes.append(f"distill: loss {first:.4f} -> {last:.4f} nats per token in {step.steps} steps")


def train_quantized(work: WorkingModel, step: Qat, *, teacher: GPT, domains: Sequence[Domain]) -> None:
    """Quantization-aware training of the matrices that a step before has made integers; their codes change."""
    stored = {path: m for path, m in work.matrices.items() if isinstance(m, IntegerMatrix) and ".h." in path}
    frozen = {id(work.model.get_submodule(path).weight) for path in work.matrices.keys() - stored.keys()}
    layers: dict[str, FakeQuantLinear] = {}
    for path, matrix in stored.items():
        codes, scales = (each.float() for each in matrix.unpacked())
        if work.unrounded is not None and path in work.unrounded:
            with torch.no_grad():
                work.linear(path).weight.copy_(within_cells(work.unrounded.pop(path), codes, scales))
        layers[path] = FakeQuantLinear(work.linear(path), bits=step.bits, scales=scales)
        _replace(work.model, path, layers[path])
    try:
        first, last = _train(work.model, step, teacher=teacher, domains=domains, frozen=frozen)
    finally:
        for path, layer in layers.items():
            _replace(work.model, path, _plain(layer))
    for path, layer in layers.items():
        work.store(path, IntegerMatrix.of(layer.weight.detach(), layer.qat_scales, bits=step.bits))
    work.notes.append(f"qat: loss {first:.4f} -> {last:.4f} nats per token in {step.steps} steps")


def within_cells(weight: Tensor, codes: Tensor, scales: Tensor, *, inside: float = INSIDE) -> Tensor:
    """(O, K) weights, codes and (O, G) scales -> the numbers next to `weight` that are rounded to these codes.

    They are at most `inside` steps of the grid from the middle of their cells.

    Training begins with the rounded model, and a weight that was near the edge of its code's cell is there still, so
    that a small step takes it to the next code; from the middle of a cell no weight would get anywhere.
    """
    middle, half = grid.dequantize(codes, scales), grid.dequantize(torch.full_like(codes, inside), scales.abs())
    return torch.maximum(torch.minimum(weight, middle + half), middle - half)


def _replace(model: GPT, path: str, module: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, module)


def _plain(layer: FakeQuantLinear) -> nn.Linear:
    plain = nn.Linear(layer.in_features, layer.out_features, bias=False, device="meta")
    plain.weight, plain.bias = layer.weight, layer.bias
    return plain


def _train(
    model: GPT, step: Healing, *, teacher: GPT, domains: Sequence[Domain], frozen: Collection[int] = ()
) -> tuple[float, float]:
    """AdamW on random windows of the calibration text; mean loss of the first and the last tenth of the steps.

    Weights are float32. Where the processor multiplies bfloat16, products are computed in it, as `trainer.precision`
    bf16-mixed does.
    """
    keep_freed_memory()
    device = next(model.parameters()).device.type
    fast = products_in_bfloat16(device)
    generator = torch.Generator().manual_seed(step.seed)
    length = window_length(model.config.block_size)
    parameters = [p.requires_grad_(True) for p in model.parameters() if id(p) not in frozen]
    optimizer = torch.optim.AdamW(parameters, lr=step.lr, betas=(0.9, 0.95), weight_decay=0.0, fused=True)
    losses = []
    for number in range(step.steps):
        rate = min(1.0, (number + 1) / max(1.0, WARMUP * step.steps)) * (1 - number / step.steps)
        for group in optimizer.param_groups:
            group["lr"] = step.lr * rate
        rows = _sample(domains, n=step.batch, length=length + 1, generator=generator)
        with torch.no_grad(), torch.autocast(device, torch.bfloat16, enabled=fast):
            source = None if step.loss == "ce" else teacher(rows[:, :-1])
        with torch.enable_grad(), torch.autocast(device, torch.bfloat16, enabled=fast):
            logits = model(rows[:, :-1])
        optimizer.zero_grad(set_to_none=True)
        losses.append(_backward(step.loss, logits, source, rows[:, 1:]))
        nn.utils.clip_grad_norm_(parameters, CLIP)
        optimizer.step()
        if number % 20 == 0:
            logger.info("%s: step %d of %d, loss %.4f", step.method, number, step.steps, losses[-1])
    model.requires_grad_(False)
    share = max(1, step.steps // 10)
    return sum(losses[:share]) / share, sum(losses[-share:]) / share


def _sample(domains: Sequence[Domain], *, n: int, length: int, generator: torch.Generator) -> Tensor:
    rows = []
    for i in range(n):
        stream = domains[i % len(domains)].calibration
        if len(stream) <= length:
            raise DataError(
                f"{domains[i % len(domains)].name} has {len(stream):,} tokens to train with.",
                needed=f"more than {length}",
                fix="--domain NAME=FILE with a longer text",
            )
        start = int(torch.randint(len(stream) - length, (1,), generator=generator))
        rows.append(stream[start : start + length])
    return torch.stack(rows)


def _backward(kind: str, logits: Tensor, source: Tensor | None, targets: Tensor) -> float:
    """Mean loss of (B, T, V) logits against those of the source, None for "ce"; its gradients are in the parameters.

    A few positions at a time: one tensor of all log probabilities after another would leave the cache.
    """
    flat, gradient = logits.detach().flatten(0, 1), torch.empty_like(logits).flatten(0, 1)
    theirs = None if source is None else source.flatten(0, 1)
    rows, total = max(1, AT_ONCE // flat.size(-1)), 0.0
    for begin in range(0, len(flat), rows):
        part = slice(begin, begin + rows)
        with torch.enable_grad():
            ours = flat[part].float().requires_grad_(True)
            wanted = None if theirs is None else theirs[part].float().log_softmax(-1)
            loss = _loss(kind, ours.log_softmax(-1), wanted, targets.flatten()[part]) / len(flat)
            gradient[part] = torch.autograd.grad(loss, ours)[0]
        total += float(loss.detach())
    logits.backward(gradient.view_as(logits))  # type: ignore[no-untyped-call]
    return total


def _loss(kind: str, ours: Tensor, source: Tensor | None, targets: Tensor) -> Tensor:
    """Summed loss of (N, V) log probabilities; `source` is None for "ce"."""
    if source is None:
        return functional.nll_loss(ours, targets, reduction="sum")
    return DIVERGENCES[kind](ours, source).sum()
