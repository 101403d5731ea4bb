"""Everything that is decided before a model exists: folder, data, model shape, hardware, and what a step costs."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch

from litgpt_core import checkpoint
from litgpt_core.checkpoint.layout import WEIGHTS
from litgpt_core.config.compose import TrainConfig
from litgpt_core.config.trainer import HardwareSettings
from litgpt_core.core import machine
from litgpt_core.core.errors import DataError
from litgpt_core.core.files import sha256_of
from litgpt_core.core.rates import peak_flops
from litgpt_core.data.chat_prepare import prepare_chats
from litgpt_core.data.dataset import TrainBatches
from litgpt_core.data.prepare import PreparedData, find_prepared, prepare
from litgpt_core.data.settings import ChatDataSettings
from litgpt_core.distributed.process_group import ProcessGroup
from litgpt_core.distributed.world import World
from litgpt_core.model.config import GPTConfig
from litgpt_core.training import micro_batch
from litgpt_core.training.allocator import keep_freed_memory
from litgpt_core.training.hardware import Hardware, Machine, look_at_machine
from litgpt_core.training.pretrained import chat_style, find_pretrained
from litgpt_core.training.resolve import Facts, Fit, ResolvedConfig, resolve
from litgpt_core.training.run_folder import RunFolder, claim_run, is_finished, open_run

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
        return sha256_of(checkpoint.resolve(Path(self.resolved.config.init_from).expanduser()) / WEIGHTS)


def make_plan(config: TrainConfig, *, command: str, group: ProcessGroup | None = None) -> Plan:
    """Look at the run folder and the machine, prepare the corpus, resolve the config, and only then claim the folder.

    What only one process may do (looking for a checkpoint, claiming the folder), rank 0 does for all.

    Whatever a user can get wrong shows here, before Lightning is imported and before anything of the run is written.

    Raises:
        LightComputeError: Anything the user can mend.
    """
    started = time.perf_counter()
    group = group or ProcessGroup(World())
    config = micro_batch.recorded(find_pretrained(config), world_size=group.world.world_size)
    folder = group.broadcast_result(lambda: open_run(config))
    found = find_machine(config.trainer.hardware)
    begun_with = folder.read_environment().get("data_fingerprint") if folder.resume_from else None
    data = group.rank_zero_first(lambda: prepare_for(config, begun_with=begun_with))
    resolved = resolve(config, Facts(world=group.world, machine=found, vocab_size=data.vocab_size, fit=_fit(group)))
    _check_corpus_length(data, resolved)
    _check_same_corpus(data, folder)
    if not group.broadcast_result(lambda: is_finished(folder, config.trainer.stop)):
        group.broadcast_result(lambda: claim_run(folder, resolved.config))
    return Plan(resolved=resolved, command=command, folder=folder, data=data, group=group, started=started)


def find_machine(settings: HardwareSettings) -> Machine:
    """What there is to compute with; from here on torch has the threads that the settings ask for."""
    found = look_at_machine(settings.accelerator)
    if settings.threads:
        torch.set_num_threads(settings.threads)
    if found.device == "cpu":
        keep_freed_memory()
    return found


def _fit(group: ProcessGroup) -> Fit:
    """`micro_batch.decide`, done by rank 0 for all."""
    world = group.world

    def fit(config: TrainConfig, model: GPTConfig, hardware: Hardware) -> TrainConfig:
        return group.broadcast_result(
            lambda: micro_batch.decide(
                config,
                model=model,
                hardware=hardware,
                world_size=world.world_size,
                neighbours=world.local_world_size,
            )
        )

    return fit


def prepare_for(config: TrainConfig, *, begun_with: str | None = None) -> PreparedData:
    """The prepared folder that a config, whose pretrained parts were found, trains on.

    A chat log grows while a run is interrupted. A resumed run goes on with the conversations it began with, whose
    fingerprint is `begun_with`, as long as their prepared folder is there.

    Raises:
        DataError, TokenizerError, CheckpointError: What is wrong with the corpus, the tokenizer or the prompt style.
    """
    if not isinstance(config.data, ChatDataSettings):
        return prepare(config.data, config.tokenizer)
    if begun_with and (found := find_prepared(config.data, fingerprint=begun_with)) is not None:
        logger.info(
            "data %s: the conversations that this run began with; newer ones wait for another", found.meta["name"]
        )
        return found
    style = chat_style(config.data, init_from=config.init_from)
    logger.info("data %s: prompt style %s", config.data.name, style.name)
    block_size = config.model.build(vocab_size=2).block_size
    return prepare_chats(config.data, config.tokenizer, style=style, block_size=block_size)


def _check_corpus_length(data: PreparedData, resolved: ResolvedConfig) -> None:
    """Raise DataError where the training split is shorter than one context, before the run folder is claimed."""
    if data.is_chat:
        return  # its rows are padded
    TrainBatches(
        data.train_path,
        dtype=data.dtype,
        block_size=resolved.model.block_size,
        seed=resolved.config.seed,
        micro_batch_size=resolved.micro_batch,
    )


def _check_same_corpus(data: PreparedData, folder: RunFolder) -> None:
    """Raise DataError where a run would be resumed on other tokens than it began with."""
    before = folder.read_environment().get("data_fingerprint") if folder.resume_from else None
    if before not in (None, data.fingerprint):
        raise DataError(
            f"the prepared data has changed since {folder.path} began: fingerprint {data.fingerprint[:12]} now, "
            f"{str(before)[:12]} then",
            needed="the same corpus and tokenizer: the model's weights belong to their token ids",
            fix="the text as it was, or a new run: run.name=...",
        )


def announce(plan: Plan, *, n_params: int) -> None:
    """Tell the user, in a few lines, what is about to happen."""
    hardware, config = plan.resolved.hardware, plan.resolved.config
    compiled = f"{'compiled' if hardware.compile else 'not compiled'} ({hardware.compile_reason})"
    device = machine.device_name(hardware.device)
    many, how = plan.group.world.world_size, config.trainer.hardware.strategy
    together = f" x {many} ({'ddp' if plan.resolved.sharding is None else how})" if many > 1 else ""
    logger.info("model: %s parameters; %s%s, %s, %s", f"{n_params:,}", device, together, hardware.precision, compiled)
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
