"""`resolve`: what a checked config comes to on one machine, with one corpus. Nothing is looked up, changed or logged:
what the machine and the run folder say is gathered before (`plan.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from litgpt_core.config.train_config import TrainConfig
from litgpt_core.core.errors import ConfigError
from litgpt_core.data.batch_rule import check_batch, micro_batches
from litgpt_core.data.settings import makes_segments
from litgpt_core.distributed.sharding import Sharding, choose_sharding
from litgpt_core.distributed.world import World
from litgpt_core.model.config import GPTConfig
from litgpt_core.model.cost import count_parameters, flops_per_token
from litgpt_core.model.lora import check_adaptable
from litgpt_core.model.tensor_slice import sliced
from litgpt_core.optim.settings import CustomOptimSettings
from litgpt_core.training.cpu_kernels import config_obstacle
from litgpt_core.training.hardware import Hardware, Machine, choose_hardware

ADAPTER_WORK = 2 / 3
"""Share of a step's work where the base weights are frozen: forward, and backward to the activations but not to W."""

Fit = Callable[[TrainConfig, GPTConfig, Hardware], TrainConfig]
"""Gives the config with a number in place of `trainer.micro_batch_size=auto`; any other config as it is."""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What the config does not know."""

    world: World
    machine: Machine
    vocab_size: int
    """Of the prepared data."""
    fit: Fit
    """Asked only once, after everything else is resolved but what follows from the micro-batch."""


@dataclass(frozen=True, kw_only=True)
class ResolvedConfig:
    """A config with nothing left open."""

    config: TrainConfig
    """With the micro-batch as a number."""
    model: GPTConfig
    hardware: Hardware
    sharding: Sharding | None
    """How the model is sharded over processes, if it is."""
    micro_batch: int
    """Sequences per forward pass and process."""
    accumulate: int
    """Micro-batches per optimizer step."""
    flops_per_token: float
    """Forward and backward."""
    n_params: int

    @property
    def tokens_per_step(self) -> int:
        """Tokens of one optimizer step over all devices."""
        return self.config.trainer.batch.global_batch_size * self.model.block_size

    @property
    def tensor_parallel(self) -> int:
        """Processes that compute each block together, and read the same data."""
        return 1 if self.sharding is None else self.sharding.tensor

    @property
    def shards_model(self) -> bool:
        """Whether no process holds the whole model."""
        return self.sharding is not None


def resolve(config: TrainConfig, facts: Facts) -> ResolvedConfig:
    """The model's shape, the hardware, the sharding and the batch.

    Args:
        config: With directories in place of names of pretrained models (`pretrained.py`).
        facts: Of this machine, this process group, this corpus.

    Raises:
        ConfigError, EnvironmentProblem: Settings that contradict each other, or the facts.
    """
    asked, world = config.trainer.hardware, facts.world
    model = config.model.build(vocab_size=facts.vocab_size)
    per_token = flops_per_token(model, seq_length=model.block_size) * (ADAPTER_WORK if config.lora else 1.0)
    tokens = config.trainer.stop.max_steps * config.trainer.batch.global_batch_size * model.block_size
    hardware = choose_hardware(
        asked,
        facts.machine,
        total_flops=per_token * tokens,
        width=model.n_embd,
        experts=model.n_expert > 0,
        adapters=config.lora is not None,
        fake_quantized=config.qat is not None,
        custom_optimizer=isinstance(config.optim, CustomOptimSettings),
        processes=world.world_size,
        kernel_obstacle=_kernel_obstacle(config, model),
    )
    sharding = _sharding(config, model, hardware=hardware, world=world)
    processes = world.world_size // (1 if sharding is None else sharding.tensor)
    if config.lora is not None:
        check_adaptable(model, config.lora)
    check_batch(global_batch_size=config.trainer.batch.global_batch_size, micro_batch_size=None, world_size=processes)
    config = facts.fit(config, model, hardware)
    batch = config.trainer.batch
    micro = check_batch(
        global_batch_size=batch.global_batch_size,
        micro_batch_size=batch.micro_batch if batch.micro_batch_size else None,
        world_size=processes,
    )
    return ResolvedConfig(
        config=config,
        model=model,
        hardware=hardware,
        sharding=sharding,
        micro_batch=micro,
        accumulate=micro_batches(batch.global_batch_size, micro=micro, processes=processes),
        flops_per_token=per_token,
        n_params=count_parameters(model),
    )


def _kernel_obstacle(config: TrainConfig, model: GPTConfig) -> str | None:
    """Why the training kernels do not compute this run, apart from device and precision."""
    kept = config.trainer.batch.activation_checkpointing
    obstacles = {
        "adapters are trained": config.lora is not None,
        "weights are rounded in the forward pass": config.qat is not None,
        f"trainer.activation_checkpointing={kept}": kept != "none",
        "rows hold several documents, which do not see each other": makes_segments(config.data),
        "blocks are divided among processes": config.trainer.hardware.tensor_parallel_size != 1,
    }
    return next((text for text, there in obstacles.items() if there), config_obstacle(model))


def _sharding(config: TrainConfig, model: GPTConfig, *, hardware: Hardware, world: World) -> Sharding | None:
    """How the model is divided among processes, if it is; refuses what cannot be divided."""
    asked = config.trainer.hardware
    found = choose_sharding(
        strategy=asked.strategy,
        world_size=world.world_size,
        local_world_size=world.local_world_size,
        shard_size=asked.shard_size,
        precision=hardware.precision,
        cpu_offload=asked.cpu_offload and hardware.device == "cuda",
        tensor=asked.tensor_parallel_size,
        head_apart=not config.trainer.batch.loss_chunk_size,
        collective_timeout=asked.collective_timeout,
    )
    if found is None:
        return None
    _refuse_sharding(config)
    if found.tensor > 1:
        _refuse_division(config)
        sliced(model, found.tensor)
    return found


def _refuse_division(config: TrainConfig) -> None:
    """What needs whole matrices or blocks where these are divided among processes."""
    hardware = config.trainer.hardware
    obstacles = {
        f"optim={config.optim.kind}": (config.optim.kind != "adamw", "optim=adamw, which steps every number by itself"),
        "lora": (config.lora is not None, "all weights trained"),
        "trainer.cpu_offload=true": (hardware.cpu_offload, "shards on the GPUs"),
        "trainer.sharded_checkpoints=true": (
            config.trainer.checkpointing.sharded_checkpoints is True,
            "LitGPT directories, for which one process puts the shares together",
        ),
    }
    for given, (there, needed) in obstacles.items():
        if there:
            both = f"{given} with trainer.tensor_parallel_size={hardware.tensor_parallel_size}"
            raise ConfigError(both, needed=needed, fix="trainer.tensor_parallel_size=1")


def _refuse_sharding(config: TrainConfig) -> None:
    """What needs whole weights in every process, and sharded checkpoints of adapters, which one process merges."""
    if config.lora is not None and config.trainer.checkpointing.sharded_checkpoints is True:
        raise ConfigError(
            "trainer.sharded_checkpoints=true with lora",
            needed="whole weights, with which one process merges the adapters",
            fix="trainer.sharded_checkpoints=auto",
        )
    needs_whole = {
        "qat": (config.qat, "whole weights, with the scales of their groups"),
        "distill": (config.distill, "a teacher and the whole model in every process"),
    }
    for name, (settings, needed) in needs_whole.items():
        if settings is not None:
            given = f"{name} with trainer.strategy={config.trainer.hardware.strategy}"
            raise ConfigError(given, needed=needed, fix="trainer.strategy=ddp")
