"""Which GPUs and which strategy: for a recipe and numbers of GPUs, every strategy with its memory, speed and price.

Where a strategy does not fit, memory-saving settings are added one after the other, the cheapest first:

    the loss in chunks -> activations: selective -> activations: full
    -> (fsdp) blocks divided among the GPUs of a machine, or state in the host's memory, whichever is faster

Without a micro-batch the largest that fits is used. Not here: arguments (`command`) and tables (`tables`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from litgpt_core.model.tensor_slice import obstacle
from litgpt_core.planning.gpus import GPU
from litgpt_core.planning.memory import SHARE, Memory, largest_micro_batch, memory
from litgpt_core.planning.recipe import DeviceLayout, Recipe, Strategy, accumulates
from litgpt_core.planning.step_time import MFU, StepTime, step_time

CHUNK = 1024
"""Tokens of a chunk of the loss, where it helps to have chunks."""

NETWORK_GBPS = 400.0
"""Between machines, all cards of one together: a single port of today's fastest kind."""


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What can be rented, and what is assumed of it."""

    gpu: GPU
    per_node: int = 8
    network_gbps: float = NETWORK_GBPS
    mfu: float = MFU
    cost_per_hour: float | None = None
    """Dollars for one GPU."""

    @property
    def limit(self) -> float:
        """Bytes that may be planned with."""
        return SHARE["cuda"] * self.gpu.memory


@dataclass(frozen=True, kw_only=True)
class Option:
    """One strategy on one number of devices."""

    layout: DeviceLayout
    recipe: Recipe
    """With its micro-batch, and with what was changed to make it fit."""
    memory: Memory
    fits: bool
    time: StepTime
    changes: tuple[str, ...] = ()
    """Overrides that make it fit."""

    @property
    def overrides(self) -> list[str]:
        """What to type after the experiment's name."""
        number = self.layout.devices
        strategy = [] if number == 1 else [f"trainer={self.layout.strategy}"]
        return [*strategy, f"trainer.micro_batch_size={self.recipe.micro_batch}", *self.changes]

    def seconds(self, tokens: float) -> float:
        """For so many tokens."""
        return tokens / self.time.tokens_per_s

    def dollars(self, tokens: float, cost_per_hour: float) -> float:
        """For so many tokens, at a price for one device."""
        return self.seconds(tokens) / 3600 * cost_per_hour * self.layout.devices


def options(recipe: Recipe, *, counts: Sequence[int], terms: Terms, micro_batch: int | None) -> list[Option]:
    """Every strategy on every number of devices.

    Args:
        recipe: As configured; its `micro_batch` is not looked at.
        counts: Numbers of devices over all machines. One that does not divide the global batch has no options, unless
            the devices of a machine can compute each block together.
        terms: The GPU and what is assumed.
        micro_batch: Sequences at once on a device; None: as many as fit.
    """
    layouts = [
        DeviceLayout(strategy=each, devices=number, per_node=terms.per_node)
        for number in counts
        if recipe.global_batch % (number * (micro_batch or 1)) == 0
        for each in strategies(number, per_node=terms.per_node)
    ]
    for number in counts:  # more devices than sequences: those of a machine read the same ones
        together = tensor_devices(recipe, number, per_node=terms.per_node)
        few = recipe.global_batch % number and not recipe.global_batch % (number // together * (micro_batch or 1))
        if together > 1 and few:
            layouts.append(DeviceLayout(strategy="fsdp", devices=number, per_node=terms.per_node, tensor=together))
    return [_option(recipe, layout, terms, micro_batch) for layout in layouts]


def strategies(number: int, *, per_node: int) -> list[Strategy]:
    """Those that make sense on so many devices."""
    if number == 1:
        return ["single"]
    several = number > per_node and number % per_node == 0
    return ["ddp", "fsdp", "fsdp_hybrid"] if several else ["ddp", "fsdp"]


def tensor_devices(recipe: Recipe, number: int, *, per_node: int) -> int:
    """Devices of a machine that can compute each block together; 1 where they cannot."""
    together = min(per_node, number)
    possible = recipe.optimizer == "adamw" and number % together == 0 and obstacle(recipe.model, together) is None
    return together if possible else 1


def best(choices: Sequence[Option]) -> Option | None:
    """The one that fits and gives most tokens per device and second; of equals, within 1 %, the first."""
    fitting = [option for option in choices if option.fits]
    if not fitting:
        return None
    most = max(_per_device(option) for option in fitting)
    return next(option for option in fitting if _per_device(option) >= 0.99 * most)


def _per_device(option: Option) -> float:
    return option.time.tokens_per_s / option.layout.devices


def _option(recipe: Recipe, layout: DeviceLayout, terms: Terms, micro_batch: int | None) -> Option:
    """The first rung of the ladder that fits, of the last two the faster; the last one where none does."""
    tried: Option | None = None
    fitting: list[Option] = []
    for changed, placed, changes in _rungs(recipe, layout):
        size = micro_batch or largest_micro_batch(changed, placed, limit=terms.limit) or 1
        sized = dataclasses.replace(changed, micro_batch=size)
        needed = memory(sized, placed)
        tried = Option(
            layout=placed,
            recipe=sized,
            memory=needed,
            fits=needed.peak <= terms.limit,
            time=step_time(sized, placed, gpu=terms.gpu, network_gbps=terms.network_gbps, mfu=terms.mfu),
            changes=changes,
        )
        if tried.fits:
            fitting.append(tried)
            if placed.tensor == layout.tensor:
                break  # else what comes next may be faster
    assert tried is not None
    chosen = max(fitting, key=lambda option: option.time.tokens_per_s) if fitting else tried
    return _with_gradients_once(chosen, terms)


def _with_gradients_once(option: Option, terms: Terms) -> Option:
    """The same with gradients added up once per step, where that is at least 1 % faster and fits."""
    recipe, layout = option.recipe, option.layout
    if not layout.sharded or layout.cpu_offload or layout.gradients_once or accumulates(recipe, layout) == 1:
        return option
    placed = dataclasses.replace(layout, gradients_once=True)
    needed = memory(recipe, placed)
    time = step_time(recipe, placed, gpu=terms.gpu, network_gbps=terms.network_gbps, mfu=terms.mfu)
    fits = needed.peak <= terms.limit
    if not (option.fits and fits and time.tokens_per_s > 1.01 * option.time.tokens_per_s):
        return option
    changes = (*option.changes, "trainer.gradient_sync=step")
    return dataclasses.replace(option, layout=placed, memory=needed, time=time, changes=changes)


def _rungs(recipe: Recipe, layout: DeviceLayout) -> Iterator[tuple[Recipe, DeviceLayout, tuple[str, ...]]]:
    """The recipe as it is, then with more and more saved."""
    changes: tuple[str, ...] = (f"trainer.tensor_parallel_size={layout.tensor}",) if layout.tensor > 1 else ()
    yield recipe, layout, changes
    if not recipe.loss_chunk_size and recipe.model.padded_vocab_size > recipe.model.n_embd:
        recipe = dataclasses.replace(recipe, loss_chunk_size=CHUNK)
        changes = (*changes, f"trainer.loss_chunk_size={CHUNK}")
        yield recipe, layout, changes
    chunks = changes
    for mode in ("selective", "full"):
        if recipe.checkpointing in ("none", "selective") and recipe.checkpointing != mode:
            recipe = dataclasses.replace(recipe, checkpointing=mode)
            changes = (*chunks, f"trainer.activation_checkpointing={mode}")
            yield recipe, layout, changes
    together = tensor_devices(recipe, layout.devices, per_node=layout.per_node)
    if together > 1 and layout.strategy == "fsdp" and layout.tensor == 1:
        divided = (*changes, f"trainer.tensor_parallel_size={together}")
        yield recipe, dataclasses.replace(layout, tensor=together), divided
    if layout.sharded and not layout.cpu_offload and layout.tensor == 1:
        yield recipe, dataclasses.replace(layout, cpu_offload=True), (*changes, "trainer.cpu_offload=true")
