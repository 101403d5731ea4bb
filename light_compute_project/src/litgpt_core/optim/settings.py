"""What the `optim` config group may say. Only `optim=custom` imports torch: to look at the class that it names."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

from litgpt_core.core.class_path import arguments_of, check_arguments, import_class
from litgpt_core.core.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class ScheduleSettings:
    """Learning rate over the run, as a factor on every group's own rate; see `optim/schedule.py`."""

    kind: Literal["cosine", "linear", "wsd", "constant"] = "cosine"
    """Shape after the warm-up: cosine or linear to the end, warm-up-stable-decay, or constant."""
    lr_warmup_steps: int = 100
    """Optimizer steps of linear warm-up from (nearly) zero."""
    min_lr_fraction: float = 0.1
    """Final rate as a fraction of the peak."""
    decay_fraction: float = 0.2
    """wsd only: the share of all steps that the final decay takes."""

    def __post_init__(self) -> None:
        problems = []
        if self.lr_warmup_steps < 0:
            problems.append(f"optim.schedule.lr_warmup_steps={self.lr_warmup_steps}: needed 0 or more")
        if not 0 <= self.min_lr_fraction <= 1:
            problems.append(f"optim.schedule.min_lr_fraction={self.min_lr_fraction}: needed a number from 0 to 1")
        if not 0 < self.decay_fraction <= 1:
            problems.append(f"optim.schedule.decay_fraction={self.decay_fraction}: needed a number above 0, up to 1")
        if problems:
            raise ConfigError("; ".join(problems))


@dataclass(frozen=True, kw_only=True)
class AdamWSettings:
    """AdamW (Loshchilov and Hutter 2019, arXiv 1711.05101) on every parameter."""

    kind: Literal["adamw"] = "adamw"
    """Which optimizer these settings belong to."""
    lr: float = 1e-3
    """Peak learning rate."""
    betas: list[float] = field(default_factory=lambda: [0.9, 0.95])
    """AdamW's decay rates of the running means of the gradient and of its square."""
    eps: float = 1e-8
    """AdamW's guard against division by zero."""
    weight_decay: float = 0.1
    """Applied to matrices (2 or more dimensions) only."""
    schedule: ScheduleSettings = field(default_factory=ScheduleSettings)
    """Learning rate over the run."""

    def __post_init__(self) -> None:
        _check_adam(self.lr, self.betas, self.weight_decay, self.eps)


@dataclass(frozen=True, kw_only=True)
class MuonSettings:
    """Muon (Jordan et al. 2024) on the blocks' matrices, AdamW on embeddings, head, norms and biases."""

    kind: Literal["muon"] = "muon"
    """Which optimizer these settings belong to."""
    lr: float = 0.01
    """AdamW's peak rate, for everything that is not a block's matrix."""
    matrix_lr: float = 0.03
    """Muon's peak rate, for the blocks' matrices; scaled per matrix by sqrt(max(1, rows / columns))."""
    momentum: float = 0.95
    """Muon's decay rate of the running mean of the gradient, in Nesterov's form."""
    betas: list[float] = field(default_factory=lambda: [0.9, 0.95])
    """AdamW's decay rates of the running means of the gradient and of its square."""
    eps: float = 1e-8
    """AdamW's guard against division by zero."""
    weight_decay: float = 0.0
    """Decoupled decay, applied to matrices (2 or more dimensions) only."""
    schedule: ScheduleSettings = field(default_factory=ScheduleSettings)
    """Learning rate over the run."""

    def __post_init__(self) -> None:
        _check_adam(self.lr, self.betas, self.weight_decay, self.eps)
        if not 0 < self.matrix_lr < math.inf or not 0 <= self.momentum < 1:
            raise ConfigError(
                f"optim.matrix_lr={self.matrix_lr}, optim.momentum={self.momentum}",
                needed="matrix_lr above 0 and momentum from 0 up to, not including, 1",
            )


@dataclass(frozen=True, kw_only=True)
class CustomOptimSettings:
    """Any optimizer by its import path, such as `torch.optim.NAdam`, on every parameter."""

    kind: Literal["custom"] = "custom"
    """Which optimizer these settings belong to."""
    class_path: str
    """Import path of a subclass of `torch.optim.Optimizer`."""
    kwargs: dict[str, Any] = field(default_factory=dict)
    """Arguments of its constructor. `lr` is the peak learning rate; `weight_decay` is applied to matrices (2 or more
    dimensions) only.
    """
    schedule: ScheduleSettings = field(default_factory=ScheduleSettings)
    """Learning rate over the run."""

    def __post_init__(self) -> None:
        cls = self.optimizer_class
        check_arguments(cls, self.kwargs, supplied=("params",), setting="optim.kwargs")
        if isinstance(self.lr, bool) or not isinstance(self.lr, int | float) or not 0 < self.lr < math.inf:
            raise ConfigError(
                f"optim.kwargs.lr={self.lr!r}: needed a number above 0, which optim.schedule multiplies",
                fix="optim.kwargs.lr=1e-3",
            )

    @property
    def optimizer_class(self) -> type:
        """The class at `class_path`.

        Raises:
            ConfigError: It cannot be imported, or is no optimizer.
        """
        return import_class(self.class_path, base="torch.optim.Optimizer", setting="optim.class_path")

    @property
    def lr(self) -> Any:
        """Peak learning rate: the one given, else the class's own default."""
        return self._argument("lr")

    @property
    def weight_decay(self) -> Any:
        """The one given, else the class's own default; None where the class has none."""
        return self._argument("weight_decay")

    def _argument(self, name: str) -> Any:
        parameters = arguments_of(self.optimizer_class, supplied=("params",))
        return self.kwargs.get(name, parameters[name].default if name in parameters else None)


OptimSettings = AdamWSettings | MuonSettings | CustomOptimSettings


def _check_adam(lr: float, betas: list[float], weight_decay: float, eps: float) -> None:
    problems = []
    if not 0 < lr < math.inf:
        problems.append(f"optim.lr={lr}: needed a number above 0, for example optim.lr=1e-3")
    if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
        problems.append(f"optim.betas={betas}: needed two numbers in [0, 1), for example optim.betas=[0.9,0.95]")
    for name, value in (("weight_decay", weight_decay), ("eps", eps)):
        if not 0 <= value < math.inf:
            problems.append(f"optim.{name}={value}: needed 0 or more")
    if problems:
        raise ConfigError("; ".join(problems))


NUMBERS_AT_ONCE = 2**25
"""Matrices that one process takes together have at most so many numbers, or are a single one."""


def matrices_at_once(rows: int, columns: int, *, count: int, processes: int) -> int:
    """How many of Muon's matrices of one size a process takes together, of `count` that several divide among them:
    `shared_matrices` does, the planner counts.
    """
    return min(max(1, NUMBERS_AT_ONCE // (rows * columns)), -(-count // processes))
