"""The work of a training race, taken from one experiment's YAML, so that every contestant gets the same numbers.

Not here: how a contestant is told to do it (`train_contestants`).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from litgpt_core.config.compose import TrainConfig, load
from litgpt_core.core.errors import ConfigError
from litgpt_core.data.prepare import prepare
from litgpt_core.model.config import GPTConfig
from litgpt_core.model.cost import count_parameters, flops_per_token


@dataclass(frozen=True, kw_only=True)
class Workload:
    """One shape, one corpus, so many steps."""

    name: str
    """What the tables call it."""
    arguments: tuple[str, ...]
    """What train.py gets: the experiment and further overrides."""
    model: GPTConfig
    """Ours; the peers take its numbers."""
    batch_size: int
    """Sequences per optimizer step."""
    micro_batch_size: int
    """Sequences per forward pass."""
    steps: int
    """Optimizer steps of one lap."""
    lr: float
    betas: tuple[float, float]
    weight_decay: float
    max_norm: float
    threads: int
    device: str
    """cpu or cuda."""
    corpus: Path
    """Prepared folder with train.bin and val.bin: raw uint16 ids."""

    def __post_init__(self) -> None:
        if self.steps < MIN_STEPS:
            raise ConfigError(
                f"--steps {self.steps}",
                needed=f"at least {MIN_STEPS}: the first half of a lap warms up, the second is measured",
                fix=f"--steps {MIN_STEPS}",
            )

    @property
    def tokens_per_step(self) -> int:
        """Tokens of one optimizer step."""
        return self.batch_size * self.model.block_size

    @property
    def flops_per_token(self) -> float:
        """Forward and backward, by `model.cost`'s count; the same figure is used for every contestant."""
        return flops_per_token(self.model, seq_length=self.model.block_size)

    def facts(self) -> dict[str, Any]:
        """Plain values for the JSON."""
        model = self.model
        return {
            "name": self.name,
            "n_layer": model.n_layer,
            "n_head": model.n_head,
            "n_embd": model.n_embd,
            "block_size": model.block_size,
            "vocabulary": model.padded_vocab_size,
            "batch_size": self.batch_size,
            "micro_batch_size": self.micro_batch_size,
            "steps": self.steps,
            "tokens_per_step": self.tokens_per_step,
            "n_params": count_parameters(model),
            "flops_per_token": self.flops_per_token,
            "threads": self.threads,
            "device": self.device,
            "corpus": self.corpus.name,
        }


MIN_STEPS = 6


def make_workload(
    name: str, *, overrides: Sequence[str] = (), steps: int | None = None, threads: int | None = None, device: str
) -> Workload:
    """Compose `+experiment=bench_<name>`, prepare its corpus, and take the numbers.

    Args:
        name: `small`, `large`: an experiment bench_<name>.yaml.
        overrides: Further overrides that change the work for everybody, such as `model.n_layer=2`.
        steps: Optimizer steps of a lap; None takes the experiment's.
        threads: CPU threads of every contestant; None takes all that this process may use.
        device: cpu or cuda.

    Raises:
        ConfigError: The experiment or an override is wrong, or there are too few steps.
        DataError: The corpus is not at hand.
    """
    arguments = (f"+experiment=bench_{name}", *overrides)
    config = load(arguments)
    data = prepare(config.data, config.tokenizer)
    if data.dtype != "uint16":
        raise ConfigError(f"the corpus holds {data.dtype} ids", needed="at most 65,536 ids, which every peer reads")
    return Workload(
        name=name,
        arguments=arguments,
        model=config.model.build(vocab_size=data.vocab_size),
        batch_size=config.trainer.batch.global_batch_size,
        micro_batch_size=config.trainer.batch.micro_batch,
        steps=steps if steps is not None else config.trainer.stop.max_steps,
        **_optimizer(config),
        threads=threads or available_threads(),
        device=device,
        corpus=data.directory,
    )


def _optimizer(config: TrainConfig) -> dict[str, Any]:
    optim = config.optim
    if optim.kind != "adamw" or config.trainer.batch.max_norm is None:
        raise ConfigError(
            f"optim={optim.kind}, trainer.max_norm={config.trainer.batch.max_norm} for every contestant",
            needed="AdamW and clipping, which every peer has",
            fix='another optimizer for ours alone: --ours "muon=optim=muon"',
        )
    first, second = optim.betas
    return {
        "lr": optim.lr,
        "betas": (first, second),
        "weight_decay": optim.weight_decay,
        "max_norm": config.trainer.batch.max_norm,
    }


def available_threads() -> int:
    """Processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
