"""`trainer.micro_batch_size=auto`: the largest micro-batch that fits into memory, decided once at the start of a run.

The global batch stays as it is; only how many sequences go through the model at once is decided. Candidates are the
divisors of the global batch per device, largest first.

    cuda           each candidate carries out two micro-batches on the device, beside stand-ins for the optimizer's
                   state; where memory runs out, the next smaller one is tried. Uncompiled, which needs more memory
    cpu and mps    bytes alive at the peak of forward and backward are counted for each candidate (on fake tensors,
                   which take neither memory nor arithmetic) and compared with the memory that is available; a mixture
                   of experts is run in earnest at 1 and 2, and a straight line drawn through both

`SHARE` of the memory may be used. The decision is written into `config.yaml` as a number, which a resumed run takes up.
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
import yaml
from torch._subclasses.fake_tensor import FakeTensorMode

from litgpt_core.config.batch import micro_batches
from litgpt_core.config.train_config import TrainConfig
from litgpt_core.config.trainer import BatchSettings
from litgpt_core.core.errors import EnvironmentProblem
from litgpt_core.model.config import GPTConfig
from litgpt_core.model.cost import count_parameters
from litgpt_core.model.gpt import GPT
from litgpt_core.model.loss import cross_entropy
from litgpt_core.training.activation_checkpointing import checkpoint_blocks
from litgpt_core.training.hardware import Hardware
from litgpt_core.training.live_memory import LiveMemory

logger = logging.getLogger(__name__)

SHARE = {"cpu": 0.75, "mps": 0.75, "cuda": 0.9}
"""Of the available memory; the rest is for Lightning, the compiler, the corpus' pages and the allocator's gaps."""


def recorded(config: TrainConfig, *, world_size: int = 1) -> TrainConfig:
    """The same config with the number that an earlier start of this run decided on, if `auto` is resumed and that
    number fits so many devices.
    """
    if config.trainer.batch.micro_batch_size != "auto" or not config.run.resume:
        return config
    try:
        before = yaml.safe_load((config.run.folder / "config.yaml").read_text(encoding="utf-8"))
        number = before["trainer"]["micro_batch_size"]
    except (OSError, yaml.YAMLError, KeyError, TypeError):
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
        world_size: Devices that share the global batch.
        neighbours: Processes that share this machine's memory, this one included.

    Raises:
        EnvironmentProblem: Not even one sequence fits on the GPU.
    """
    settings = config.trainer.batch
    if settings.micro_batch_size != "auto":
        return config
    sizes = divisors(settings.global_batch_size // world_size)
    if hardware.device == "cuda":
        number, reason = _by_trying(sizes, _cuda_trial(model, settings, hardware=hardware))
    else:
        number, reason = _by_estimate(
            sizes, model, settings, hardware=hardware, available=available_memory() // neighbours
        )
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


# ---- a CPU: count, then calculate ----


def _by_estimate(
    sizes: list[int], model: GPTConfig, settings: BatchSettings, *, hardware: Hardware, available: int
) -> tuple[int, str]:
    """The largest of `sizes` whose estimated bytes stay within the share of `available` bytes, and why."""
    if sizes == [1]:
        return 1, "there is nothing to divide"
    limit = SHARE[hardware.device] * available
    needs = {1: step_bytes(model, settings, hardware=hardware, batch=1)}
    slope = step_bytes(model, settings, hardware=hardware, batch=2) - needs[1] if model.n_expert else 0

    def fits(size: int) -> bool:
        if size not in needs:
            line = needs[1] + (size - 1) * slope
            needs[size] = line if slope else step_bytes(model, settings, hardware=hardware, batch=size)
        return needs[size] <= limit

    fitting, too_large = len(sizes) - 1, -1
    while fitting - too_large > 1:
        middle = (fitting + too_large) // 2
        fitting, too_large = (middle, too_large) if fits(sizes[middle]) else (fitting, middle)
    number = sizes[fitting]
    reason = f"an estimated {needs[number] / 1e9:.2f} GB of {limit / 1e9:.2f} GB, {SHARE[hardware.device]:.0%} of what "
    reason += "is available"
    if needs[number] > limit:
        logger.warning("even one sequence at a time may not fit into memory: try trainer.activation_checkpointing=full")
    elif number != sizes[0]:
        larger = sizes[sizes.index(number) - 1]
        reason += f"; {larger} would take {needs[larger] / 1e9:.2f} GB"
    return number, reason


def step_bytes(model: GPTConfig, settings: BatchSettings, *, hardware: Hardware, batch: int) -> int:
    """Bytes that training with micro-batches of `batch` sequences holds at its peak: weights, optimizer, activations.

    A mixture of experts is run in earnest, since what its tensors' shapes are depends on the numbers in them.
    """
    weights = count_parameters(model)
    mode = contextlib.nullcontext() if model.n_expert else FakeTensorMode()
    with mode, torch.random.fork_rng(devices=[]):
        network = _network(model, settings, hardware=hardware, device="cpu")
        with LiveMemory() as memory:
            for _ in range(1 if hardware.flat else 2):  # a flat optimizer takes gradients away after every micro-batch
                _micro_batch(network, settings, hardware=hardware, batch=batch)
    size = next(network.parameters()).element_size()
    if hardware.flat:  # master, its gradient and two means in float32, perhaps a working copy, gradients laid in a row
        held = weights * (16 + (size if hardware.precision == "bf16-master" else 0))
        return held + max(int(memory.peak), 2 * weights * size)
    return 3 * weights * size + int(memory.peak)


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


# ---- a GPU: try ----


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


def _cuda_trial(model: GPTConfig, settings: BatchSettings, *, hardware: Hardware) -> Callable[[int], None]:
    def trial(size: int) -> None:
        torch.cuda.set_per_process_memory_fraction(SHARE["cuda"])
        try:
            network = _network(model, settings, hardware=hardware, device="cuda")
            means = [torch.empty_like(p) for p in network.parameters() for _ in range(2)]
            for _ in range(2):  # the second beside the first one's gradients
                _micro_batch(network, settings, hardware=hardware, batch=size)
            del means
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)

    return trial


def _free_device_memory() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


# ---- both ----


def _network(model: GPTConfig, settings: BatchSettings, *, hardware: Hardware, device: str) -> GPT:
    usual = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16 if hardware.precision in ("bf16-master", "bf16-true") else usual)
    try:
        with torch.device(device):
            network = GPT(model)
    finally:
        torch.set_default_dtype(usual)
    checkpoint_blocks(network, settings.activation_checkpointing)
    return network


def _micro_batch(network: GPT, settings: BatchSettings, *, hardware: Hardware, batch: int) -> None:
    """Forward and backward on ids of 0; gradients stay."""
    device = next(network.parameters()).device
    ids = torch.zeros(batch, network.config.block_size, dtype=torch.long, device=device)
    mixed = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}.get(hardware.precision)
    with torch.autocast(device.type, dtype=mixed or torch.bfloat16, enabled=mixed is not None):
        loss = cross_entropy(
            network.hidden(ids),
            network.head,
            ids,
            chunk_size=settings.loss_chunk_size,
            z_loss=settings.z_loss,
            label_smoothing=settings.label_smoothing,
        )
    loss.backward()  # type: ignore[no-untyped-call]
