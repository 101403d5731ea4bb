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
from litgpt_core.core import machine
from litgpt_core.core.errors import ConfigError, DataError
from litgpt_core.core.files import sha256_of
from litgpt_core.core.rates import peak_flops
from litgpt_core.data.prepare import prepare
from litgpt_core.data.prepared import PreparedData
from litgpt_core.distributed.process_group import Team
from litgpt_core.distributed.sharding import Sharding, choose_sharding
from litgpt_core.distributed.world import World, check_batch
from litgpt_core.model.config import GPTConfig
from litgpt_core.model.cost import count_parameters, flops_per_token
from litgpt_core.model.lora import check_adaptable
from litgpt_core.optim.settings import CustomOptimSettings
from litgpt_core.training import micro_batch
from litgpt_core.training.allocator import keep_freed_memory
from litgpt_core.training.hardware import Hardware, choose_hardware, find_device
from litgpt_core.training.pretrained import find_pretrained
from litgpt_core.training.run_folder import RunFolder, claim_run, is_finished, open_run

logger = logging.getLogger(__name__)


ADAPTER_WORK = 2 / 3
"""Share of a step's work where the base weights are frozen: forward, and backward to the activations but not to W."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One run, decided but not begun."""

    config: TrainConfig
    command: str
    """What the user typed, for the record."""
    folder: RunFolder
    data: PreparedData
    model: GPTConfig
    hardware: Hardware
    flops_per_token: float
    """Forward and backward."""
    micro_batch: int
    """Sequences per forward pass and process."""
    n_params: int
    sharding: Sharding | None = None
    """How the model is shared out over processes, if it is."""
    team: Team = field(default_factory=lambda: Team(World()))
    """The processes of the run."""
    started: float = field(default_factory=time.perf_counter)
    """When the run began, on `time.perf_counter`'s clock."""

    @cached_property
    def peak(self) -> tuple[float | None, str]:
        """The device's peak in this precision, FLOP/s or None if unknown, and where the figure comes from.

        A CPU's is measured when first asked for: first asked for after the first steps, when nothing else computes.
        """
        return peak_flops(self.hardware.device, precision=self.hardware.precision)

    @property
    def peak_of_all(self) -> float | None:
        """That of all devices together. Only rank 0 writes it down, and on a CPU measuring takes a moment."""
        if not self.team.is_first or self.peak[0] is None:
            return None
        return self.peak[0] * self.team.world.world_size

    @cached_property
    def base_sha256(self) -> str:
        """Hash of the weights file that `init_from` names."""
        assert self.config.init_from is not None
        return sha256_of(checkpoint.resolve(Path(self.config.init_from).expanduser()) / WEIGHTS)

    @property
    def tokens_per_step(self) -> int:
        """Tokens of one optimizer step over all devices."""
        return self.config.trainer.global_batch_size * self.model.block_size

    @property
    def accumulate(self) -> int:
        """Micro-batches per optimizer step."""
        return self.config.trainer.global_batch_size // (self.micro_batch * self.team.world.world_size)

    @property
    def shards_model(self) -> bool:
        """Whether no process holds the whole model."""
        return self.sharding is not None


def make_plan(config: TrainConfig, *, command: str, team: Team | None = None) -> Plan:
    """Look at the run folder, prepare the corpus, settle on the hardware, and only then claim the folder.

    What only one process may do (looking for a checkpoint, claiming the folder), rank 0 does for all.

    Whatever a user can get wrong shows here, before Lightning is imported and before anything of the run is written.

    Raises:
        LightComputeError: Anything the user can mend.
    """
    started = time.perf_counter()
    team = team or Team(World())
    world = team.world
    config = micro_batch.recorded(find_pretrained(config), world_size=world.world_size)
    folder = team.first_alone(lambda: open_run(config))
    device = find_device(config.trainer.accelerator)
    if config.trainer.threads:
        torch.set_num_threads(config.trainer.threads)
    if device == "cpu":
        keep_freed_memory()
    begun_with = folder.read_environment().get("data_fingerprint") if folder.resume_from else None
    data = team.first_then_others(lambda: prepare_for(config, begun_with=begun_with))
    model = config.model.build(vocab_size=data.vocab_size)
    per_token = flops_per_token(model, seq_length=model.block_size) * (ADAPTER_WORK if config.lora else 1.0)
    tokens = config.trainer.max_steps * config.trainer.global_batch_size * model.block_size
    hardware = choose_hardware(
        config.trainer,
        total_flops=per_token * tokens,
        width=model.n_embd,
        experts=model.n_expert > 0,
        adapters=config.lora is not None,
        custom_optimizer=isinstance(config.optim, CustomOptimSettings),
        processes=world.world_size,
    )
    sharding = choose_sharding(
        strategy=config.trainer.strategy,
        world_size=world.world_size,
        local_world_size=world.local_world_size,
        shard_size=config.trainer.shard_size,
        precision=hardware.precision,
        cpu_offload=config.trainer.cpu_offload and device == "cuda",
    )
    if sharding is not None and config.lora is not None:
        raise ConfigError(
            f"lora with trainer.strategy={config.trainer.strategy}",
            needed="adapters beside whole base weights",
            fix="trainer.strategy=ddp",
        )
    size = world.world_size
    check_batch(global_batch_size=config.trainer.global_batch_size, micro_batch_size=None, world_size=size)
    config = team.first_alone(
        lambda: micro_batch.decide(
            config, model=model, hardware=hardware, world_size=size, neighbours=world.local_world_size
        )
    )
    settings = config.trainer
    micro = check_batch(
        global_batch_size=settings.global_batch_size,
        micro_batch_size=settings.micro_batch if settings.micro_batch_size else None,
        world_size=world.world_size,
    )
    if config.lora is not None:
        check_adaptable(model, config.lora)
    data.check_block_size(model.block_size)
    _check_same_corpus(data, folder)
    if not team.first_alone(lambda: is_finished(folder, settings)):
        team.first_alone(lambda: claim_run(folder, config))
    return Plan(
        config=config,
        command=command,
        folder=folder,
        data=data,
        model=model,
        hardware=hardware,
        flops_per_token=per_token,
        micro_batch=micro,
        n_params=count_parameters(model),
        sharding=sharding,
        team=team,
        started=started,
    )


def prepare_for(config: TrainConfig, *, begun_with: str | None = None) -> PreparedData:
    """The prepared folder that a config, whose pretrained parts were found, trains on.

    A resumed run on a chat log, which may have grown, uses the folder with the fingerprint `begun_with` if it exists.

    Raises:
        DataError, TokenizerError, CheckpointError: What is wrong with the corpus, the tokenizer or the prompt style.
    """
    return prepare(
        config.data,
        config.tokenizer,
        block_size=config.model.build(vocab_size=2).block_size,
        init_from=checkpoint.resolve(Path(config.init_from).expanduser()) if config.init_from else None,
        fingerprint=begun_with,
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
    hardware, config = plan.hardware, plan.config
    compiled = f"{'compiled' if hardware.compile else 'not compiled'} ({hardware.compile_reason})"
    device = machine.device_name(hardware.device)
    many, how = plan.team.world.world_size, config.trainer.strategy
    together = f" x {many} ({'ddp' if plan.sharding is None else how})" if many > 1 else ""
    logger.info("model: %s parameters; %s%s, %s, %s", f"{n_params:,}", device, together, hardware.precision, compiled)
    if plan.folder.resume_from:
        logger.info("continuing from %s", plan.folder.resume_from)
    tokens = config.trainer.max_steps * plan.tokens_per_step
    if config.optim.schedule.lr_warmup_steps >= config.trainer.max_steps:
        logger.warning(
            "optim.schedule.lr_warmup_steps=%s, but trainer.max_steps=%s: the learning rate never reaches its peak",
            config.optim.schedule.lr_warmup_steps,
            config.trainer.max_steps,
        )
    logger.info(
        "training: %s steps, %s tokens (%.2f epochs of %s); loss is in nats per token",
        f"{config.trainer.max_steps:,}",
        f"{tokens:,}",
        tokens / plan.data.epoch_tokens,
        f"{plan.data.epoch_tokens:,}",
    )
