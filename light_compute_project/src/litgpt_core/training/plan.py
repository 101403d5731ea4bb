"""A run that is decided but not begun: what its parts are built from. `gather.py` makes it."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from litgpt_core import checkpoint
from litgpt_core.checkpoint.verification import weights_file
from litgpt_core.core import machine
from litgpt_core.core.files import sha256_of
from litgpt_core.core.rates import peak_flops
from litgpt_core.data.prepared import PreparedData
from litgpt_core.distributed.process_group import ProcessGroup
from litgpt_core.distributed.world import World
from litgpt_core.training.resolve import ResolvedConfig
from litgpt_core.training.run_folder import RunFolder

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One run, decided but not begun."""

    resolved: ResolvedConfig
    command: str
    """What the user typed, for the record."""
    folder: RunFolder
    data: PreparedData
    group: ProcessGroup = field(default_factory=lambda: ProcessGroup(World()))
    """The processes of the run."""
    started: float = field(default_factory=time.perf_counter)
    """When the run began, on `time.perf_counter`'s clock."""

    @cached_property
    def peak(self) -> tuple[float | None, str]:
        """The device's peak in this precision, FLOP/s or None if unknown, and where the figure comes from.

        A CPU's is measured when first asked for: first asked for after the first steps, when nothing else computes.
        """
        return peak_flops(self.resolved.hardware.device, precision=self.resolved.hardware.precision)

    @property
    def peak_of_all(self) -> float | None:
        """That of all devices together. Only rank 0 writes it down, and on a CPU measuring takes a moment."""
        if not self.group.is_rank_zero or self.peak[0] is None:
            return None
        return self.peak[0] * self.group.world.world_size

    @cached_property
    def base_sha256(self) -> str:
        """Hash of the weights file that `init_from` names."""
        assert self.resolved.config.init_from is not None
        return _weights_sha256(self.resolved.config.init_from)

    @cached_property
    def teacher_sha256(self) -> str:
        """Hash of the weights file of `distill.teacher`."""
        settings = self.resolved.config.distill
        assert settings is not None and settings.teacher is not None
        return _weights_sha256(settings.teacher)


def _weights_sha256(directory: str) -> str:
    return sha256_of(weights_file(checkpoint.resolve(Path(directory).expanduser())))


def announce(plan: Plan, *, n_params: int) -> None:
    """Tell the user, in a few lines, what is about to happen."""
    hardware, config = plan.resolved.hardware, plan.resolved.config
    compiled = f"{'compiled' if hardware.compile else 'not compiled'} ({hardware.compile_reason})"
    if hardware.cpu_kernels:
        compiled = "by the training kernels"
    device = machine.device_name(hardware.device)
    many, how = plan.group.world.world_size, config.trainer.hardware.strategy
    divided = plan.resolved.tensor_parallel
    also = f", {divided} compute each block together" if divided > 1 else ""
    together = f" x {many} ({'ddp' if plan.resolved.sharding is None else how}{also})" if many > 1 else ""
    logger.info("model: %s parameters; %s%s, %s, %s", f"{n_params:,}", device, together, hardware.precision, compiled)
    full = config.trainer.hardware.float32_matmul_precision == "highest"
    if hardware.device == "cuda" and hardware.precision == "32-true" and full and machine.has_tf32():
        logger.info(
            "float32 products do not use TF32; trainer.float32_matmul_precision=high allows it, several times as fast"
        )
    if plan.folder.resume_from:
        logger.info("continuing from %s", plan.folder.resume_from)
    tokens = config.trainer.stop.max_steps * plan.resolved.tokens_per_step
    if config.optim.schedule.lr_warmup_steps >= config.trainer.stop.max_steps:
        logger.warning(
            "optim.schedule.lr_warmup_steps=%s, but trainer.max_steps=%s: the learning rate never reaches its peak",
            config.optim.schedule.lr_warmup_steps,
            config.trainer.stop.max_steps,
        )
    logger.info(
        "training: %s steps, %s tokens (%.2f epochs of %s); loss is in nats per token",
        f"{config.trainer.stop.max_steps:,}",
        f"{tokens:,}",
        tokens / plan.data.epoch_tokens,
        f"{plan.data.epoch_tokens:,}",
    )
