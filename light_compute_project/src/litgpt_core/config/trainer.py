"""What the `trainer` section of a training config may say: six groups of settings, each for those whom it concerns.

Ranges stand in the types, which pydantic checks (`check.py`); here is only what several settings must satisfy together.
The bounds come from pydantic's own dependency annotated-types, so that `--help` need not load pydantic.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Lt

from litgpt_core.core.durations import seconds_of
from litgpt_core.core.errors import ConfigError
from litgpt_core.data.batch_rule import check_batch

Count = Annotated[int, Ge(1)]
NotNegative = Annotated[int, Ge(0)]
Positive = Annotated[float, Gt(0)]
Weight = Annotated[float, Ge(0)]
Share = Annotated[float, Ge(0), Lt(1)]


@dataclass(frozen=True, kw_only=True)
class BatchSettings:
    """What one optimizer step computes: its sequences, its loss, its gradients."""

    global_batch_size: Count = 32
    """Sequences per optimizer step, over all devices."""
    micro_batch_size: Count | Literal["auto"] | None = None
    """Sequences per forward pass on one device; null: the global batch at once; auto: as many as fit into memory,
    decided once at the start of the run. Must divide the global batch.
    """
    num_workers: NotNegative = 0
    """Data-loading processes; 0 is fastest for memory-mapped tokens."""
    loss_chunk_size: NotNegative = 0
    """Compute the loss in chunks of this many tokens, so that logits of the whole batch are never held; 0: all at
    once.
    """
    activation_checkpointing: Literal["none", "selective", "full"] = "none"
    """What blocks keep for the backward pass. none: everything; selective: results of large products, the rest is
    computed again; full: a block's input only. Less memory for more computing, at the same gradients.
    """
    z_loss: Weight = 0.0
    """Weight of the squared log-partition in the training loss, which keeps logits from drifting (PaLM: 1e-4).
    Validation stays plain cross-entropy.
    """
    label_smoothing: Share = 0.0
    """Share of the target's probability that the training loss spreads over all tokens, from 0 up to, not including, 1.
    Validation stays plain cross-entropy.
    """
    max_norm: Positive | None = 1.0
    """Clip the global gradient norm to this; null: measure it only."""

    def __post_init__(self) -> None:
        micro = self.micro_batch_size
        if isinstance(micro, int):
            check_batch(global_batch_size=self.global_batch_size, micro_batch_size=micro, world_size=1)

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


@dataclass(frozen=True, kw_only=True)
class StopSettings:
    """When the run ends."""

    max_steps: Count = 1000
    """Optimizer steps of the whole run."""
    epochs: Positive | None = None
    """Passes over the training tokens, such as 10 or 0.5; decides `max_steps` in its place. null: `max_steps` counts.
    """
    stop_after: Count | None = None
    """End this session after this optimizer step, with a checkpoint; the schedule stays that of `max_steps`. null: go
    on to the end.
    """
    shorter_experiment: str | None = None
    """An experiment to suggest where the first steps show that the run takes more than 8 minutes here; null: none."""
    patience: Count | None = None
    """End the run after this many validations in a row without a better one; null: never."""
    min_delta: Weight = 0.0
    """By how much a validation must be below the best so far to count as better for `patience`, nats per token."""


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
    """What is measured and said of the model, and how often."""

    log_interval: Count = 10
    """Optimizer steps between rows of metrics."""
    eval_interval: Count = 100
    """Optimizer steps between validations."""
    eval_tokens: Count | None = 100_000
    """Validation tokens looked at during the run (spread evenly); null: the whole split. The last validation always
    takes all.
    """
    eval_batch_size: Count | None = None
    """Sequences per forward pass in validation; null: as in training."""
    sample_prompts: list[str] = field(default_factory=lambda: ["\n"])
    """What `samples.txt` continues at the end of the run."""
    sample_tokens: NotNegative = 120
    """New tokens for each prompt; 0 writes no samples."""


@dataclass(frozen=True, kw_only=True)
class CheckpointSettings:
    """Which weights are written, and how often."""

    save_interval: Count = 100
    """Optimizer steps between checkpoints."""
    save_every: str | float | None = None
    """Save a checkpoint also when this much time has passed since the last one: 5m, 90s. For machines that may be taken
    away without a warning; no number of the run depends on it. null: by steps alone.
    """
    keep_checkpoints: Count = 3
    """Newest step checkpoints kept, besides `best` and `last`."""
    restore_best: bool | Literal["auto"] = "auto"
    """Whether `final/` holds the weights with the lowest validation loss instead of the last ones; auto: with
    `patience`.
    """
    sharded_checkpoints: bool | Literal["auto"] = "auto"
    """fsdp only: every process writes its own part; auto: from 2 billion parameters. `scripts/consolidate.py` makes a
    LitGPT directory of such a checkpoint; `final/` always is one.
    """

    def __post_init__(self) -> None:
        if self.save_every is None:
            return
        if re.fullmatch(r"\s*\d+(?:\.\d+)?\s*", str(self.save_every)):
            number = str(self.save_every).strip()
            raise ConfigError(
                f"trainer.save_every={number} has no unit",
                needed="a time; steps between checkpoints are trainer.save_interval",
                fix=f"trainer.save_every={number}s, or trainer.save_interval={number}",
            )
        try:
            seconds_of(self.save_every)
        except ConfigError as error:
            raise ConfigError(f"trainer.save_every={self.save_every!r}: {error.given}; needed {error.needed}") from None


@dataclass(frozen=True, kw_only=True)
class HardwareSettings:
    """On what the run computes, in which precision, with how many processes."""

    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where to compute; auto: CUDA, else MPS, else CPU."""
    devices: Count | Literal["auto"] = 1
    """Processes per node, one per GPU (or share of a CPU); auto: all GPUs, one process without any. Under torchrun and
    SLURM their number decides.
    """
    num_nodes: Count = 1
    """Machines; more than one need torchrun or SLURM to start the processes."""
    strategy: Literal["auto", "ddp", "fsdp", "fsdp_hybrid"] = "auto"
    """What several processes do: ddp: each holds the whole model; fsdp: weights, gradients and optimizer state are
    shared out (FSDP2); fsdp_hybrid: shared out within a node, copied across nodes; auto: ddp. One process needs none.
    """
    shard_size: Count | None = None
    """fsdp_hybrid only: processes among which one copy is shared out; null: those of a node."""
    tensor_parallel_size: Count | Literal["auto"] = 1
    """fsdp only: processes of a node that compute each block together, each with its share of heads and hidden units
    (tensor parallelism); auto: those of a node. For models whose blocks or activations are too large for one GPU, and
    batches that are too small for all.
    """
    cpu_offload: bool = False
    """fsdp on GPUs only: keep weights and optimizer state in the host's memory. Slow, but fits more."""
    gradient_sync: Literal["micro_batch", "step"] = "micro_batch"
    """fsdp only, where a step has several micro-batches: when gradients are added up over the processes. micro_batch:
    after each, so that a process holds its shard of them; step: once, which sends less and holds all gradients.
    """
    collective_timeout: Positive = 1800.0
    """Seconds to wait for the other processes, at the start and in every operation that they do together."""
    hang_timeout: Positive | None = 1800.0
    """Seconds without a finished batch after which every thread's stack is written to the run folder and the process
    is ended; with several processes at most 0.8 of `collective_timeout`; null: wait for ever.
    """
    precision: Literal["auto", "32-true", "bf16-master", "bf16-mixed", "bf16-true", "16-mixed"] = "auto"
    """auto: bfloat16 where the hardware multiplies it, else 32-true. `bf16-master` computes with a bfloat16 copy of
    float32 master weights, `bf16-mixed` casts operation by operation, `bf16-true` has no float32 weights at all.
    """
    compile: bool | Literal["auto"] = "auto"
    """torch.compile; auto: where a compiler is at hand and the run is long enough to earn the compile time back."""
    cpu_kernels: bool | Literal["auto"] = "auto"
    """Compute blocks and loss with C++ kernels of this project on a CPU, in 32-true, or in bf16-mixed with AVX512-BF16
    or AMX; auto: where the compiler would be used there and the kernels support the model, with AMX up to n_embd=256.
    """
    float32_matmul_precision: Literal["highest", "high"] = "highest"
    """torch's setting for float32 matrix products: `high` lets GPUs from Ampere on use TF32, which keeps 10 bits of the
    mantissa and is about 7 times as fast. It does not concern bfloat16 products.
    """
    deterministic: bool = False
    """Force deterministic algorithms. A CPU run with fixed `threads` is reproducible without it."""
    threads: Count | None = None
    """CPU threads for torch; null: torch's own choice. Results are bit-identical only at the same number."""


@dataclass(frozen=True, kw_only=True)
class BudgetSettings:
    """What the run may take in time and money."""

    max_time: str | float | None = None
    """End the run cleanly, with a checkpoint, after this much time, its sessions added up: 90m, 2h30m, 1.5d,
    days as "01:11:30:00", or a number of seconds. null: no limit.
    """
    max_session_time: str | float | None = None
    """The same for this session alone, counted from the moment the command began; the run continues in another.
    """
    max_cost: Positive | None = None
    """End the run cleanly when it has cost this many dollars, its sessions added up; needs `cost_per_hour`."""
    cost_per_hour: Positive | None = None
    """Dollars that one device (GPU) costs per hour: a machine's price divided by its devices."""

    def __post_init__(self) -> None:
        problems = []
        for name, value in (("max_time", self.max_time), ("max_session_time", self.max_session_time)):
            try:
                seconds_of(1.0 if value is None else value)
            except ConfigError as error:
                problems.append(f"trainer.{name}={value!r}: {error.given}; needed {error.needed}")
        if self.max_cost is not None and self.cost_per_hour is None:
            problems.append(f"trainer.max_cost={self.max_cost} needs a price: trainer.cost_per_hour=... for one device")
        if problems:
            raise ConfigError("; ".join(problems))


@dataclass(frozen=True, kw_only=True)
class TrainerSettings:
    """How a run is carried out. In a config all keys stand side by side: `trainer.max_steps`, without the group's name.

    Names are LitGPT's where it has one.
    """

    batch: BatchSettings = field(default_factory=BatchSettings)
    """What one optimizer step computes: its sequences, its loss, its gradients."""
    stop: StopSettings = field(default_factory=StopSettings)
    """When the run ends."""
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)
    """What is measured and said of the model, and how often."""
    checkpointing: CheckpointSettings = field(default_factory=CheckpointSettings)
    """Which weights are written, and how often."""
    hardware: HardwareSettings = field(default_factory=HardwareSettings)
    """On what the run computes, in which precision, with how many processes."""
    budget: BudgetSettings = field(default_factory=BudgetSettings)
    """What the run may take in time and money."""

    @property
    def keeps_best(self) -> bool:
        """`restore_best`, decided."""
        restore = self.checkpointing.restore_best
        return self.stop.patience is not None if restore == "auto" else restore
