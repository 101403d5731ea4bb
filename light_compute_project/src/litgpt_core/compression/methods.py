"""From the steps of a recipe to what they do in the walk: a table, and the steps that end in integers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from litgpt_core.compression.gptq import gptq_matrix
from litgpt_core.compression.rounding import round_matrix
from litgpt_core.compression.settings import Gptq, Quantizing, Round, Step
from litgpt_core.compression.state import WorkingModel
from litgpt_core.compression.walk import Action, BlockContext, Inputs
from litgpt_core.core.errors import ConfigError
from litgpt_core.model import grid


def action_of(step: Step) -> Action:
    """What a step does in the walk."""
    if isinstance(step, Round):
        return _rounding(step)
    if isinstance(step, Gptq):
        return _gptq(step)
    raise AssertionError(step)


def _rounding(step: Round) -> Action:
    def quantize(weight: Tensor, inputs: Inputs | None) -> Any:
        importance = inputs.moment.diagonal() if inputs is not None and step.clip == "activations" else None
        return round_matrix(weight, bits=step.bits, clip=step.clip, per=step.per, importance=importance)

    return quantizing(step, quantize, calibrated=step.clip == "activations")


def _gptq(step: Gptq) -> Action:
    def quantize(weight: Tensor, inputs: Inputs | None) -> Any:
        assert inputs is not None
        return gptq_matrix(weight, inputs.moment, bits=step.bits, clip=step.clip, damp=step.damp)

    return quantizing(step, quantize, calibrated=True)


def quantizing(step: Quantizing, quantize: Callable[[Tensor, Inputs | None], Any], *, calibrated: bool) -> Action:
    """Quantize every linear layer of a block, and the head and the embedding by rounding.

    Routers of mixtures stay as they are: a few rows that decide where tokens go.
    """

    def block(context: BlockContext) -> None:
        if context.structure.index == 0:
            check_widths(context.work, step)
        for part in context.structure.linears:
            path = context.path(part.name)
            if part.role == "router" or any(text in path for text in step.skip):
                continue
            inputs = context.inputs.get(part.reads)
            context.work.store(path, quantize(context.linear(part.name).weight.detach(), inputs))

    return Action(block, calibrated, lambda work, _: quantize_ends(work, step))


def check_widths(work: WorkingModel, step: Quantizing) -> None:
    """Raise ConfigError if groups do not divide the inputs of a layer that `skip` does not name; lists all of them."""
    wrong = {
        part.name.rpartition("experts.")[2]: part.columns
        for path, part in work.parts.linears()
        if part.columns % grid.GROUP
        and part.role not in ("router", *(() if step.head else ("head",)))
        and not any(text in path for text in step.skip)
    }
    if wrong:
        listed = ", ".join(f"{name} ({columns} inputs)" for name, columns in wrong.items())
        raise ConfigError(
            f"Groups of {grid.GROUP} inputs do not divide {listed}.",
            needed=f"widths that are multiples of {grid.GROUP}, or these layers left as they are",
            fix=f"--set skip=[{','.join(wrong)}]",
        )


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
