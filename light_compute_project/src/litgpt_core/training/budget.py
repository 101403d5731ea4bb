"""When a run has used up its time or its money. Standard library only; ending the run is `saving.py`'s work.

    trainer.max_time           the whole run: its sittings added up
    trainer.max_sitting_time   this sitting alone: for a machine that is lent for twelve hours
    trainer.max_cost           dollars of the whole run, at trainer.cost_per_hour for every device

All three count from the moment a command began, since a machine is paid for while it prepares data, too. What earlier
sittings used is in the checkpoint: a sitting on more devices, or at another price, is counted as what it was. What a
sitting did after its last checkpoint is in none, if it was killed.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from litgpt_core.errors import ConfigError

if TYPE_CHECKING:
    from litgpt_core.training.settings import TrainerSettings

Duration = str | float
"""As people write it: `90m`, `2h30m`, `1.5h`, `00:11:30:00`, or a number of seconds."""

EXAMPLES = "90m, 2h30m, 1.5d, hours as 11:30:00, days as 01:11:30:00 or 1-11:30:00, or a number of seconds"

_SECONDS = {"d": 86_400.0, "h": 3_600.0, "m": 60.0, "s": 1.0}
_UNITS = re.compile(r"(?:(\d+(?:\.\d+)?)d)?(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?")
_CLOCK = re.compile(r"(?:(\d+)[-:])?(\d+):([0-5]?\d):([0-5]?\d)")

YAML_BASE_60 = 60**3
"""YAML 1.1 reads a bare `1:02:30:00` as one number in base 60, which is not what a clock means from here on."""


def seconds_of(duration: Duration) -> float:
    """Seconds of a duration as people write it.

    `HH:MM:SS` and Lightning's `DD:HH:MM:SS` are taken, as is SLURM's `D-HH:MM:SS`. Two fields are refused: `1:30` is
    minutes to one and hours to another.

    Raises:
        ConfigError: It is none of these, or not above 0.
    """
    if not isinstance(duration, str) and YAML_BASE_60 <= duration < math.inf:
        raise ConfigError(
            f"{duration:.12g} could be a clock such as 1:02:30:00 that YAML has read as a number",
            needed="such a clock in quotes, or seconds with their unit",
            fix=f'"01:02:30:00", or {duration:.12g}s',
        )
    seconds = _read(duration.strip().lower()) if isinstance(duration, str) else float(duration)
    if seconds is None or not 0 < seconds < math.inf:
        raise ConfigError(f"{duration!r} is no duration", needed=f"something like {EXAMPLES}")
    return seconds


def budget_problems(settings: TrainerSettings) -> list[str]:
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


def _read(text: str) -> float | None:
    if not text:
        return None
    if clock := _CLOCK.fullmatch(text):
        fields = zip(_SECONDS.values(), clock.groups(default="0"), strict=True)
    elif units := _UNITS.fullmatch(text):
        fields = zip(_SECONDS.values(), units.groups(default="0"), strict=True)
    else:
        return float(text) if re.fullmatch(r"\d+(?:\.\d+)?", text) else None
    return sum(size * float(number) for size, number in fields)


def duration_text(seconds: float) -> str:
    """`1 d 2 h`, `2 h 30 min`, `45 s`: the two largest units."""
    whole = round(seconds)
    days, hours, minutes = whole // 86_400, whole // 3_600 % 24, whole // 60 % 60
    parts = [(days, "d"), (hours, "h"), (minutes, "min"), (whole % 60, "s")]
    first = next((i for i, (number, _) in enumerate(parts) if number), 3)
    shown = [f"{number} {unit}" for number, unit in parts[first : first + 2] if number]
    return " ".join(shown) or "0 s"


@dataclass(frozen=True, kw_only=True)
class Used:
    """What a run has used."""

    run_s: float
    """Seconds of all sittings, from each command's beginning."""
    sitting_s: float
    """Of these, this sitting's."""
    dollars: float
    """Of all sittings; 0 without a price."""


@dataclass(frozen=True, kw_only=True)
class Exhausted:
    """Which limit was reached."""

    reason: str
    """For example `trainer.max_time=90m is used up: 1 h 30 min over all sittings`."""
    fix: str
    """What continues the run."""


@dataclass(frozen=True, kw_only=True)
class Budget:
    """The limits of a run; None does not limit."""

    max_time: Duration | None = None
    """Of the whole run."""
    max_sitting_time: Duration | None = None
    """Of this sitting."""
    max_cost: float | None = None
    """Dollars of the whole run."""
    cost_per_hour: float | None = None
    """Dollars for one device."""
    devices: int = 1
    """That are paid for, over all nodes."""

    @classmethod
    def of(cls, settings: TrainerSettings, *, devices: int) -> Budget:
        """What the trainer section says, for a run on so many devices over all nodes."""
        return cls(
            max_time=settings.max_time,
            max_sitting_time=settings.max_sitting_time,
            max_cost=settings.max_cost,
            cost_per_hour=settings.cost_per_hour,
            devices=devices,
        )

    def dollars(self, seconds: float) -> float:
        """What so many seconds on these devices cost; 0 without a price."""
        return (self.cost_per_hour or 0.0) * self.devices * seconds / 3_600.0

    def seconds_left(self, used: Used) -> float | None:
        """Seconds until the nearest limit, negative beyond it; None without a limit."""
        left = [seconds for seconds, _ in self._limits(used)]
        return min(left) if left else None

    def exhausted(self, used: Used, *, reserve_s: float = 0.0) -> Exhausted | None:
        """The limit that is reached, or would be within `reserve_s`: what one more step and its checkpoint take."""
        over = [(left, end) for left, end in self._limits(used) if left <= reserve_s]
        return min(over, key=lambda pair: pair[0])[1] if over else None

    def _limits(self, used: Used) -> list[tuple[float, Exhausted]]:
        found = []
        if self.max_time is not None:
            reason = f"trainer.max_time={self.max_time} is used up: {duration_text(used.run_s)} over all sittings"
            fix = "the same command with run.resume=true and a larger trainer.max_time"
            found.append((seconds_of(self.max_time) - used.run_s, Exhausted(reason=reason, fix=fix)))
        if self.max_sitting_time is not None:
            reason = f"trainer.max_sitting_time={self.max_sitting_time} is used up: {duration_text(used.sitting_s)}"
            fix = "the same command with run.resume=true goes on for another sitting"
            found.append((seconds_of(self.max_sitting_time) - used.sitting_s, Exhausted(reason=reason, fix=fix)))
        if self.max_cost is not None and self.dollars(1.0) > 0:
            reason = f"trainer.max_cost={self.max_cost:g} is used up: {used.dollars:.2f} dollars over all sittings"
            fix = "the same command with run.resume=true and a larger trainer.max_cost"
            left = (self.max_cost - used.dollars) / self.dollars(1.0)
            found.append((left, Exhausted(reason=reason, fix=fix)))
        return found


class Meter:
    """What this run has used so far, over all its sittings.

    Args:
        budget: Price, devices and limits of this sitting.
        started: When the command began, on the clock.
        clock: Seconds that only grow.
    """

    def __init__(self, budget: Budget, *, started: float, clock: Callable[[], float] = time.perf_counter) -> None:
        self.budget, self._started, self._clock = budget, started, clock
        self._seconds_before = self._dollars_before = 0.0

    def state_dict(self) -> dict[str, float]:
        """Seconds and dollars of the run up to now."""
        used = self.used
        return {"run_s": used.run_s, "dollars": used.dollars}

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        """Add what earlier sittings used."""
        self._seconds_before, self._dollars_before = state_dict["run_s"], state_dict["dollars"]

    @property
    def used(self) -> Used:
        """Up to now."""
        sitting = self._clock() - self._started
        return Used(
            run_s=self._seconds_before + sitting,
            sitting_s=sitting,
            dollars=self._dollars_before + self.budget.dollars(sitting),
        )

    def exhausted(self, *, reserve_s: float = 0.0) -> Exhausted | None:
        """As `Budget.exhausted`, now."""
        return self.budget.exhausted(self.used, reserve_s=reserve_s)
