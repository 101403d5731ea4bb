"""From the steps of a recipe to what they do in the walk: a table, and the steps that end in integers."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from litgpt_core.compression.equivalent import permute_model, rotate_model
from litgpt_core.compression.experts import merge_experts
from litgpt_core.compression.gptq import gptq_matrix
from litgpt_core.compression.healing import distill, teacher_of, train_quantized
from litgpt_core.compression.mixed import choose_bits
from litgpt_core.compression.pruning import prune_block
from litgpt_core.compression.reconstruct import reconstruct
from litgpt_core.compression.rounding import round_matrix
from litgpt_core.compression.scaling import awq_block, smooth_block
from litgpt_core.compression.settings import (
    Awq,
    Depth,
    Experts,
    Gptq,
    Heads,
    Mixed,
    Permute,
    Prune,
    Quantizing,
    Rotate,
    Round,
    Smooth,
    Svd,
    Width,
)
from litgpt_core.compression.state import WorkingModel
from litgpt_core.compression.step import Step
from litgpt_core.compression.structured import narrow_mlps, remove_blocks, remove_heads
from litgpt_core.compression.svd import svd_block
from litgpt_core.compression.texts import Domain
from litgpt_core.compression.training_settings import Distill, Healing, Qat, Reconstruct
from litgpt_core.compression.walk import Action, BlockContext, Inputs, walk
from litgpt_core.model.gpt import GPT

BLOCK_STEPS: dict[type[Step], Callable[[Any], Action]] = {
    Round: lambda step: _rounding(step),
    Gptq: lambda step: _gptq(step),
    Awq: lambda step: Action(lambda context: awq_block(context, step), calibrated=True, keeps_inputs=True),
    Smooth: lambda step: Action(lambda context: smooth_block(context, step), calibrated=True, keeps_inputs=True),
    Prune: lambda step: Action(lambda context: prune_block(context, step), calibrated=step.needs_text),
    Svd: lambda step: Action(lambda context: svd_block(context, step), calibrated=step.needs_text),
}
"""Steps that work block by block; neighbours in a recipe share one walk."""

MODEL_STEPS: dict[type[Step], Callable[[Any, WorkingModel, Any], None]] = {
    Depth: lambda step, work, windows: remove_blocks(work, windows, remove=step.remove),
    Width: lambda step, work, windows: narrow_mlps(work, windows, keep=step.keep),
    Experts: lambda step, work, windows: merge_experts(work, windows, keep=step.keep),
    Heads: lambda step, work, windows: remove_heads(work, windows, keep=step.keep),
    Rotate: lambda step, work, _: rotate_model(work, seed=step.seed),
    Permute: lambda step, work, _: permute_model(work, seed=step.seed),
    Mixed: lambda step, work, windows: _mixed(step, work, windows),
}
"""Steps that see the whole model at once."""


def run_steps(
    work: WorkingModel, steps: Sequence[Step], *, windows: Tensor | None, domains: Sequence[Domain] = ()
) -> None:
    """Apply the steps of a recipe in order.

    Args:
        work: Changed in place.
        steps: Checked.
        windows: (N, T) calibration ids, if a step needs them.
        domains: Text to train with, if a step trains.
    """
    teacher = teacher_of(work.model) if any(isinstance(step, Healing) for step in steps) else work.model
    rebuilt = any(isinstance(step, Reconstruct) for step in steps)
    if rebuilt or any(isinstance(step, Qat) for step in steps):
        work.unrounded = {}
    before: GPT | None = None
    for whole, group in itertools.groupby(steps, key=lambda step: type(step) not in BLOCK_STEPS):
        if whole:
            for step in group:
                if isinstance(step, Distill):
                    distill(work, step, teacher=teacher, domains=domains)
                elif isinstance(step, Reconstruct):
                    assert before is not None and windows is not None, "the recipe was checked"
                    reconstruct(work, step, source=before, windows=windows)
                elif isinstance(step, Qat):
                    train_quantized(work, step, teacher=teacher, domains=domains)
                else:
                    MODEL_STEPS[type(step)](step, work, windows)
        else:
            before = teacher_of(work.model) if rebuilt else None  # awq and smooth leave what is between blocks alone
            walk(work, [BLOCK_STEPS[type(step)](step) for step in group], windows=windows)


def _mixed(step: Mixed, work: WorkingModel, windows: Tensor) -> None:
    chosen = choose_bits(work, windows, step)
    with torch.no_grad():
        for path, bits in chosen.items():
            work.store(path, round_matrix(work.linear(path).weight.detach(), bits=bits, clip=step.clip))
        quantize_ends(work, step)


def _rounding(step: Round) -> Action:
    def quantize(weight: Tensor, inputs: Inputs | None) -> Any:
        importance = inputs.moment.diagonal() if inputs is not None and step.clip == "activations" else None
        return round_matrix(weight, bits=step.bits, clip=step.clip, per=step.per, importance=importance)

    return quantizing(step, quantize, calibrated=step.clip == "activations")


def _gptq(step: Gptq) -> Action:
    def quantize(weight: Tensor, inputs: Inputs | None) -> Any:
        assert inputs is not None
        return gptq_matrix(weight, inputs.moment, bits=step.bits, clip=step.clip, damp=step.damp, refit=step.refit)

    return quantizing(step, quantize, calibrated=True)


def quantizing(step: Quantizing, quantize: Callable[[Tensor, Inputs | None], Any], *, calibrated: bool) -> Action:
    """Quantize every linear layer of a block, and the head and the embedding by rounding.

    Routers of mixtures stay as they are: a few rows that decide where tokens go.
    """

    def block(context: BlockContext) -> None:
        for part in context.structure.linears:
            path = context.path(part.name)
            if part.role == "router" or any(text in path for text in step.skip):
                continue
            inputs, weight = context.inputs.get(part.reads), context.linear(part.name).weight.detach()
            if context.work.unrounded is not None:
                context.work.unrounded[path] = weight.clone()
            context.work.store(path, quantize(weight, inputs))

    return Action(block, calibrated, lambda work, _: quantize_ends(work, step))


def quantize_ends(work: WorkingModel, step: Quantizing) -> None:
    """Quantize the output layer and the token embedding, one matrix where they are tied."""
    if step.head is None or any(text in "lm_head" for text in step.skip):
        return
    ends = (
        {"lm_head": work.model.lm_head}
        if work.tied
        else {
            "lm_head": work.model.lm_head,
            "transformer.wte": work.model.transformer.wte,
        }
    )
    for path, module in ends.items():
        weight = module.weight
        assert isinstance(weight, Tensor)
        work.store(path, round_matrix(weight.detach(), bits=step.head, clip="mse" if step.head == 4 else "absmax"))
