"""`trainer.micro_batch_size=auto`: the largest micro-batch that fits into memory, decided once at the start of a run.

The global batch stays as it is; only how many sequences go through the model at once is decided. Candidates are the
divisors of the global batch per device, and `planning/memory.py`, which `plan.py` asks too, estimates what each takes:

    cpu, mps, fsdp   the largest whose estimate stays within `SHARE` of the available memory
    cuda             of those whose estimate the device can hold, the largest that carries out two micro-batches there,
                     alongside placeholders for the optimizer's state, within `SHARE` of the memory. Uncompiled, which
                     needs more memory. Not for a sharded model: no device holds it alone

The decision is written into `config.yaml` as a number, which a resumed run uses again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import logging
from collections.abc import Callable
from pathlib import Path

import psutil
import torch

from litgpt_core.config.train_config import TrainConfig
from litgpt_core.config.trainer import BatchSettings, HardwareSettings
from litgpt_core.core.errors import EnvironmentProblem
from litgpt_core.core.parsing import ParsingError, read_yaml
from litgpt_core.data.batch_rule import micro_batches
from litgpt_core.distributed.sharding import tensor_processes
from litgpt_core.model.config import GPTConfig
from litgpt_core.model.gpt import GPT
from litgpt_core.model.loss import cross_entropy
from litgpt_core.planning.activations import Device
from litgpt_core.planning.memory import SHARE, largest_micro_batch, memory
from litgpt_core.planning.recipe import DeviceLayout, Precision, Recipe, Strategy, recipe_of
from litgpt_core.training.activation_checkpointing import checkpoint_blocks
from litgpt_core.training.hardware import Hardware

logger = logging.getLogger(__name__)

_WIDTHS: dict[str, Precision] = {
    "32-true": "32-true", "bf16-master": "bf16-master", "bf16-mixed": "bf16-mixed", "bf16-true": "bf16-true",
    "16-mixed": "bf16-mixed",
}  # fmt: skip
"""A run's precision -> the one that an estimate knows, with numbers of the same widths."""


def recorded(config: TrainConfig, *, world_size: int = 1) -> TrainConfig:
    """The same config with the number that an earlier start of this run decided on, if `auto` is resumed and that
    number fits so many devices.
    """
    if config.trainer.batch.micro_batch_size != "auto" or not config.run.resume:
        return config
    try:
        before = read_yaml(config.run.folder / "config.yaml")
        number = before["trainer"]["micro_batch_size"]
    except (OSError, ParsingError, KeyError, TypeError):
        return config
    whole, asked = isinstance(number, int) and number > 0, config.trainer.batch.global_batch_size
    fits = whole and micro_batches(asked, micro=number, processes=world_size)
    return with_number(config, number) if fits else config


def decide(
    config: TrainConfig, *, model: GPTConfig, hardware: Hardware, world_size: int = 1, neighbours: int = 1
) -> TrainConfig:
    """The same config with a number in place of `auto`; the number and its reason are logged.

    Args:
        config: Anything but `auto` comes back as it is.
        model: The shape to be trained.
        hardware: Where and in which precision.
        world_size: Devices of the run.
        neighbours: Processes that share this machine's memory, this one included.

    Raises:
        EnvironmentProblem: Not even one sequence fits on the GPU.
    """
    settings = config.trainer.batch
    if settings.micro_batch_size != "auto":
        return config
    device: Device = "cuda" if hardware.device == "cuda" else "cpu"
    recipe = recipe_of(config, model=model, precision=_WIDTHS[hardware.precision], device=device)
    layout = layout_of(config.trainer.hardware, hardware=hardware, world_size=world_size, per_node=neighbours)
    if hardware.device == "cuda" and hardware.sharded:
        number, reason = _by_estimate(recipe, layout, available=device_memory(), share=SHARE["cuda"])
    elif hardware.device == "cuda":
        most = largest_micro_batch(recipe, layout, limit=device_memory()) or 1
        sizes = [size for size in divisors(settings.global_batch_size // layout.readers) if size <= most]
        number, reason = _by_trying(sizes, _cuda_trial(model, settings, hardware=hardware, segments=recipe.segments))
    else:
        available = available_memory() // neighbours
        number, reason = _by_estimate(recipe, layout, available=available, share=SHARE[hardware.device])
    logger.info("micro-batch: %d of %d sequences (auto: %s)", number, settings.global_batch_size, reason)
    return with_number(config, number)


def with_number(config: TrainConfig, number: int) -> TrainConfig:
    """The same config with that micro-batch, in its settings and in what is written to `config.yaml`."""
    plain = {**config.plain, "trainer": {**config.plain["trainer"], "micro_batch_size": number}}
    batch = dataclasses.replace(config.trainer.batch, micro_batch_size=number)
    return dataclasses.replace(config, trainer=dataclasses.replace(config.trainer, batch=batch), plain=plain)


def divisors(number: int) -> list[int]:
    """All of them, largest first."""
    return [n for n in range(number, 0, -1) if number % n == 0]


# ---- by estimate ----


def layout_of(settings: HardwareSettings, *, hardware: Hardware, world_size: int, per_node: int) -> DeviceLayout:
    """The devices of a run, and who holds what."""
    if world_size == 1:
        return DeviceLayout()
    strategy: Strategy = "ddp"
    if hardware.sharded:
        strategy = "fsdp_hybrid" if settings.strategy == "fsdp_hybrid" else "fsdp"
    return DeviceLayout(
        strategy=strategy,
        devices=world_size,
        per_node=per_node,
        shard_size=settings.shard_size,
        tensor=tensor_processes(settings.tensor_parallel_size, local_world_size=per_node),
        cpu_offload=settings.cpu_offload,
        gradients_once=hardware.sharded and settings.gradient_sync == "step",
    )


def _by_estimate(recipe: Recipe, layout: DeviceLayout, *, available: float, share: float) -> tuple[int, str]:
    """The largest micro-batch whose estimate stays within the share of `available` bytes, or 1, and why."""
    sizes, limit = divisors(recipe.global_batch // layout.readers), share * available
    if sizes == [1]:
        return 1, "there is nothing to divide"

    def gigabytes(size: int) -> str:
        return f"{memory(dataclasses.replace(recipe, micro_batch=size), layout).peak / 1e9:.2f} GB"

    number = largest_micro_batch(recipe, layout, limit=limit)
    if number is None:
        logger.warning("even one sequence at a time may not fit into memory: try trainer.activation_checkpointing=full")
        number = 1
    reason = f"an estimated {gigabytes(number)} of {limit / 1e9:.2f} GB, {share:.0%} of what is available"
    if number != sizes[0]:
        larger = sizes[sizes.index(number) - 1]
        reason += f"; {larger} would take {gigabytes(larger)}"
    return number, reason


def available_memory() -> int:
    """Bytes that this process may still take: the system's, or its control group's where that is tighter."""
    free = int(psutil.virtual_memory().available)
    for limit_file, used_file in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        with contextlib.suppress(OSError, ValueError):
            limit, used = (int(Path("/sys/fs/cgroup", name).read_text()) for name in (limit_file, used_file))
            free = min(free, max(limit - used, 0))
    return free


# ---- on a GPU: try ----


def device_memory() -> int:
    """Bytes of the GPU's memory, free or not."""
    return int(torch.cuda.get_device_properties().total_memory)


def _by_trying(sizes: list[int], trial: Callable[[int], None]) -> tuple[int, str]:
    """The first of `sizes` whose `trial` does not run out of memory, and why."""
    for index, size in enumerate(sizes):
        try:
            trial(size)
        except torch.OutOfMemoryError:
            _free_device_memory()
            continue
        _free_device_memory()
        return size, "tried on the device" + (f"; {sizes[index - 1]} ran out of memory" if index else "")
    raise EnvironmentProblem(
        "trainer.micro_batch_size=auto, but not even one sequence fits into the device's memory",
        needed="a smaller model or context, or a way to keep less of it",
        fix="trainer.activation_checkpointing=full trainer.loss_chunk_size=512",
    )


def _cuda_trial(
    model: GPTConfig, settings: BatchSettings, *, hardware: Hardware, segments: bool
) -> Callable[[int], None]:
    def trial(size: int) -> None:
        torch.cuda.set_per_process_memory_fraction(SHARE["cuda"])
        try:
            network = _network(model, settings, hardware=hardware)
            means = [torch.empty_like(p) for p in network.parameters() for _ in range(2)]
            for _ in range(2):  # the second alongside the first one's gradients
                _micro_batch(network, settings, hardware=hardware, batch=size, segments=segments)
            del means
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)

    return trial


def _free_device_memory() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def _network(model: GPTConfig, settings: BatchSettings, *, hardware: Hardware) -> GPT:
    usual = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16 if hardware.precision in ("bf16-master", "bf16-true") else usual)
    try:
        with torch.device("cuda"):
            network = GPT(model)
    finally:
        torch.set_default_dtype(usual)
    checkpoint_blocks(network, settings.activation_checkpointing)
    return network


def _micro_batch(
    network: GPT, settings: BatchSettings, *, hardware: Hardware, batch: int, segments: bool = False
) -> None:
    """Forward and backward on ids of 0, with the mask of conversations if their rows hold several; gradients stay."""
    device = next(network.parameters()).device
    ids = torch.zeros(batch, network.config.block_size, dtype=torch.long, device=device)
    mixed = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}.get(hardware.precision)
    with torch.autocast(device.type, dtype=mixed or torch.bfloat16, enabled=mixed is not None):
        loss = cross_entropy(
            network.hidden(ids, segments=ids if segments else None),
            network.head,
            ids,
            chunk_size=settings.loss_chunk_size,
            z_loss=settings.z_loss,
            label_smoothing=settings.label_smoothing,
        )
    loss.backward()  # type: ignore[no-untyped-call]
