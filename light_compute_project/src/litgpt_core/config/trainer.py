"""What the `run`, `trainer` and `logger` sections of a training config may say. Only `logger=custom` imports more than
the standard library: the class that it names.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from litgpt_core.core.class_path import arguments_of, check_arguments, import_class
from litgpt_core.core.durations import seconds_of
from litgpt_core.core.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """Where a run lives and whether it continues."""

    name: str
    """The run's folder below `dir`, and its name on the dashboard."""
    dir: str = "runs"
    """Folder that holds the runs; relative to where the command is typed."""
    resume: bool | Literal["auto"] = False
    """false: refuse a used folder; true: continue it; auto: continue it if there is something to continue, else
    start.
    """

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", self.name):
            raise ConfigError(
                f"run.name={self.name!r}",
                needed="letters, digits, '.', '_' and '-', starting with a letter or digit",
                fix="run.name=my-first-run",
            )
        if not self.dir:
            raise ConfigError("run.dir is empty", needed="a folder that holds runs", fix="run.dir=runs")

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return Path(self.dir).expanduser() / self.name


@dataclass(frozen=True, kw_only=True)
class TrainerSettings:
    """How a run is carried out. Names are LitGPT's where it has one."""

    max_steps: int = 1000
    """Optimizer steps of the whole run."""
    stop_after: int | None = None
    """End this sitting after this optimizer step, with a checkpoint; the schedule stays that of `max_steps`. null: go
    on to the end.
    """
    max_time: str | float | None = None
    """End the run cleanly, with a checkpoint, after this much time, its sittings added up: 90m, 2h30m, 1.5d,
    days as "01:11:30:00", or a number of seconds. null: no limit.
    """
    max_sitting_time: str | float | None = None
    """The same for this sitting alone, counted from the moment the command began; the run continues in another.
    """
    max_cost: float | None = None
    """End the run cleanly when it has cost this many dollars, its sittings added up; needs `cost_per_hour`."""
    cost_per_hour: float | None = None
    """Dollars that one device (GPU) costs per hour: a machine's price divided by its devices."""
    global_batch_size: int = 32
    """Sequences per optimizer step, over all devices."""
    micro_batch_size: int | Literal["auto"] | None = None
    """Sequences per forward pass on one device; null: the global batch at once; auto: as many as fit into memory,
    decided once at the start of the run. Must divide the global batch.
    """
    max_norm: float | None = 1.0
    """Clip the global gradient norm to this; null: measure it only."""
    log_interval: int = 10
    """Optimizer steps between rows of metrics."""
    eval_interval: int = 100
    """Optimizer steps between validations."""
    eval_tokens: int | None = 100_000
    """Validation tokens looked at during the run (spread evenly); null: the whole split. The last validation always
    takes all.
    """
    eval_batch_size: int | None = None
    """Sequences per forward pass in validation; null: as in training."""
    save_interval: int = 100
    """Optimizer steps between checkpoints."""
    keep_checkpoints: int = 3
    """Newest step checkpoints kept, besides `best` and `last`."""
    patience: int | None = None
    """End the run after this many validations in a row without a better one; null: never."""
    min_delta: float = 0.0
    """By how much a validation must be below the best so far to count as better for `patience`, nats per token."""
    restore_best: bool | Literal["auto"] = "auto"
    """Whether `final/` holds the weights with the lowest validation loss instead of the last ones; auto: with
    `patience`.
    """
    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where to compute; auto: CUDA, else MPS, else CPU."""
    devices: int | Literal["auto"] = 1
    """Processes per node, one per GPU (or share of a CPU); auto: all GPUs, one process without any. Under torchrun and
    SLURM their number decides.
    """
    num_nodes: int = 1
    """Machines; more than one need torchrun or SLURM to start the processes."""
    strategy: Literal["auto", "ddp", "fsdp", "fsdp_hybrid"] = "auto"
    """What several processes do: ddp: each holds the whole model; fsdp: weights, gradients and optimizer state are
    shared out (FSDP2); fsdp_hybrid: shared out within a node, copied across nodes; auto: ddp. One process needs none.
    """
    shard_size: int | None = None
    """fsdp_hybrid only: processes among which one copy is shared out; null: those of a node."""
    cpu_offload: bool = False
    """fsdp on GPUs only: keep weights and optimizer state in the host's memory. Slow, but fits more."""
    sharded_checkpoints: bool | Literal["auto"] = "auto"
    """fsdp only: every process writes its own part; auto: from 2 billion parameters. `scripts/consolidate.py` makes a
    LitGPT directory of such a checkpoint; `final/` always is one.
    """
    collective_timeout: float = 1800.0
    """Seconds to wait for the other processes, at the start and in every operation that they do together."""
    hang_timeout: float | None = 1800.0
    """Seconds without a finished batch after which every thread's stack is written to the run folder and the process
    is ended; with several processes at most 0.8 of `collective_timeout`; null: wait for ever.
    """
    precision: Literal["auto", "32-true", "bf16-master", "bf16-mixed", "bf16-true", "16-mixed"] = "auto"
    """auto: bfloat16 where the hardware multiplies it, else 32-true. `bf16-master` computes with a bfloat16 copy of
    float32 master weights, `bf16-mixed` casts operation by operation, `bf16-true` has no float32 weights at all.
    """
    compile: bool | Literal["auto"] = "auto"
    """torch.compile; auto: where a compiler is at hand and the run is long enough to earn the compile time back."""
    deterministic: bool = False
    """Force deterministic algorithms. A CPU run with fixed `threads` is reproducible without it."""
    threads: int | None = None
    """CPU threads for torch; null: torch's own choice. Results are bit-identical only at the same number."""
    num_workers: int = 0
    """Data-loading processes; 0 is fastest for memory-mapped tokens."""
    loss_chunk_size: int = 0
    """Compute the loss in chunks of this many tokens, so that logits of the whole batch are never held; 0: all at
    once.
    """
    activation_checkpointing: Literal["none", "selective", "full"] = "none"
    """What blocks keep for the backward pass. none: everything; selective: results of large products, the rest is
    computed again; full: a block's input only. Less memory for more computing, at the same gradients.
    """
    z_loss: float = 0.0
    """Weight of the squared log-partition in the training loss, which keeps logits from drifting (PaLM: 1e-4).
    Validation stays plain cross-entropy.
    """
    label_smoothing: float = 0.0
    """Share of the target's probability that the training loss spreads over all tokens, from 0 up to, not including, 1.
    Validation stays plain cross-entropy.
    """
    sample_prompts: list[str] = field(default_factory=lambda: ["\n"])
    """What `samples.txt` continues at the end of the run."""
    sample_tokens: int = 120
    """New tokens for each prompt; 0 writes no samples."""

    def __post_init__(self) -> None:
        problems = [
            f"trainer.{name}={getattr(self, name)}: needed a whole number of at least {least}"
            for name, least in _LEAST.items()
            if isinstance(getattr(self, name), int) and getattr(self, name) < least
        ]
        problems += [
            f"trainer.{name}={value}: needed a number of seconds above 0"
            for name in ("collective_timeout", "hang_timeout")
            if (value := getattr(self, name)) is not None and not 0 < value < math.inf
        ]
        micro = self.micro_batch_size
        if isinstance(micro, int) and micro > 0 and self.global_batch_size > 0 and self.global_batch_size % micro:
            divisors = [
                n for n in range(1, self.global_batch_size + 1) if self.global_batch_size % n == 0 and n <= micro
            ]
            problems.append(
                f"trainer.micro_batch_size={micro} does not divide trainer.global_batch_size={self.global_batch_size}: "
                f"try trainer.micro_batch_size={divisors[-1]}"
            )
        if not 0 <= self.min_delta < math.inf:
            problems.append(
                f"trainer.min_delta={self.min_delta}: needed 0 or more, for example trainer.min_delta=0.001"
            )
        if self.max_norm is not None and not 0 < self.max_norm < math.inf:
            problems.append(f"trainer.max_norm={self.max_norm}: needed a number above 0, or null to clip nothing")
        if not 0 <= self.z_loss < math.inf:
            problems.append(f"trainer.z_loss={self.z_loss}: needed 0 or more, for example trainer.z_loss=1e-4")
        if not 0 <= self.label_smoothing < 1:
            problems.append(
                f"trainer.label_smoothing={self.label_smoothing}: needed a number from 0 up to, not including, 1"
            )
        problems += _budget_problems(self)
        if problems:
            raise ConfigError("; ".join(problems))

    @property
    def keeps_best(self) -> bool:
        """`restore_best`, decided."""
        return self.patience is not None if self.restore_best == "auto" else self.restore_best

    @property
    def micro_batch(self) -> int:
        """Sequences per forward pass.

        Raises:
            ConfigError: It is `auto`, and no run has decided yet.
        """
        if self.micro_batch_size == "auto":
            raise ConfigError(
                "trainer.micro_batch_size=auto, which only a training run decides",
                needed="a number here",
                fix=f"trainer.micro_batch_size={self.global_batch_size}",
            )
        return self.micro_batch_size or self.global_batch_size


def _budget_problems(settings: TrainerSettings) -> list[str]:
    """What is wrong with the limits of a trainer section, one line each."""
    problems = []
    for name in ("max_time", "max_sitting_time"):
        value = getattr(settings, name)
        try:
            seconds_of(1.0 if value is None else value)
        except ConfigError as error:
            problems.append(f"trainer.{name}={value!r}: {error.given}; needed {error.needed}")
    for name in ("max_cost", "cost_per_hour"):
        value = getattr(settings, name)
        if value is not None and not 0 < value < math.inf:
            problems.append(f"trainer.{name}={value}: needed a number of dollars above 0")
    if settings.max_cost is not None and settings.cost_per_hour is None:
        problems.append(f"trainer.max_cost={settings.max_cost} needs a price: trainer.cost_per_hour=... for one device")
    return problems


_LEAST = {
    "max_steps": 1,
    "stop_after": 1,
    "global_batch_size": 1,
    "micro_batch_size": 1,
    "log_interval": 1,
    "eval_interval": 1,
    "eval_tokens": 1,
    "eval_batch_size": 1,
    "save_interval": 1,
    "keep_checkpoints": 1,
    "patience": 1,
    "threads": 1,
    "devices": 1,
    "num_nodes": 1,
    "shard_size": 1,
    "num_workers": 0,
    "loss_chunk_size": 0,
    "sample_tokens": 0,
}


@dataclass(frozen=True, kw_only=True)
class WandbSettings:
    """Weights & Biases: online with a key, offline without, never a prompt."""

    kind: Literal["wandb"] = "wandb"
    """Which logger these settings belong to."""
    project: str = "light-compute-project"
    """Project on the dashboard."""
    entity: str | None = None
    """Team or user on the dashboard; null: the key's own."""
    mode: Literal["auto", "online", "offline"] = "auto"
    """auto: online if a key is found (WANDB_API_KEY or a netrc entry), else offline."""
    tags: list[str] = field(default_factory=list)
    """Labels of the run on the dashboard."""
    group: str | None = None
    """Name under which the dashboard puts runs together."""
    init_timeout: float = 20.0
    """Seconds to wait for the server before the run goes on offline."""


@dataclass(frozen=True, kw_only=True)
class PlainLoggerSettings:
    """Loggers that need no settings; `metrics.jsonl` is written with every one of them."""

    kind: Literal["csv", "tensorboard", "none"]
    """Where curves go besides `metrics.jsonl`."""


@dataclass(frozen=True, kw_only=True)
class CustomLoggerSettings:
    """Any of Lightning's loggers, or one of your own, by its import path."""

    kind: Literal["custom"] = "custom"
    """Which logger these settings belong to."""
    class_path: str
    """Import path of a subclass of `lightning.pytorch.loggers.Logger`."""
    kwargs: dict[str, Any] = field(default_factory=dict)
    """Arguments of its constructor. `save_dir` is the run folder, unless another is given."""

    def __post_init__(self) -> None:
        given = {"save_dir": "", **self.kwargs} if self.takes_save_dir else self.kwargs
        check_arguments(self.logger_class, given, supplied=(), setting="logger.kwargs")

    @property
    def logger_class(self) -> type:
        """The class at `class_path`.

        Raises:
            ConfigError: It cannot be imported, or is no logger.
        """
        return import_class(self.class_path, base="lightning.pytorch.loggers.Logger", setting="logger.class_path")

    @property
    def takes_save_dir(self) -> bool:
        """Whether the class wants to know a folder to write to."""
        return "save_dir" in arguments_of(self.logger_class, supplied=())


LoggerSettings = WandbSettings | PlainLoggerSettings | CustomLoggerSettings
