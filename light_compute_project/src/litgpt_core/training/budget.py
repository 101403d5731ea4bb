"""When a run has used up its time or its money. Standard library only; ending the run is `saving.py`'s work.

    trainer.max_time           the whole run: its sessions added up
    trainer.max_session_time   this session alone: for a machine that is lent for twelve hours
    trainer.max_cost           dollars of the whole run, at trainer.cost_per_hour for every device

All three count from the moment a command began, since a machine is paid for while it prepares data, too. What earlier
sessions used is in the checkpoint: a session on more devices, or at another price, is counted as what it was. What a
session did after its last checkpoint is in none, if it was killed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from litgpt_core.core.durations import Duration, duration_text, seconds_of

if TYPE_CHECKING:
    from litgpt_core.config.trainer import BudgetSettings


@dataclass(frozen=True, kw_only=True)
class Used:
    """What a run has used."""

    run_s: float
    """Seconds of all sessions, from each command's beginning."""
    session_s: float
    """Of these, this session's."""
    dollars: float
    """Of all sessions; 0 without a price."""


@dataclass(frozen=True, kw_only=True)
class Exhausted:
    """Which limit was reached."""

    reason: str
    """For example `trainer.max_time=90m is used up: 1 h 30 min over all sessions`."""
    fix: str
    """What continues the run."""


@dataclass(frozen=True, kw_only=True)
class Budget:
    """The limits of a run; None does not limit."""

    max_time: Duration | None = None
    """Of the whole run."""
    max_session_time: Duration | None = None
    """Of this session."""
    max_cost: float | None = None
    """Dollars of the whole run."""
    cost_per_hour: float | None = None
    """Dollars for one device."""
    devices: int = 1
    """That are paid for, over all nodes."""

    @classmethod
    def of(cls, settings: BudgetSettings, *, devices: int) -> Budget:
        """What the settings say, for a run on so many devices over all nodes."""
        return cls(
            max_time=settings.max_time,
            max_session_time=settings.max_session_time,
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
            reason = f"trainer.max_time={self.max_time} is used up: {duration_text(used.run_s)} over all sessions"
            fix = "the same command with run.resume=true and a larger trainer.max_time"
            found.append((seconds_of(self.max_time) - used.run_s, Exhausted(reason=reason, fix=fix)))
        if self.max_session_time is not None:
            reason = f"trainer.max_session_time={self.max_session_time} is used up: {duration_text(used.session_s)}"
            fix = "the same command with run.resume=true goes on for another session"
            found.append((seconds_of(self.max_session_time) - used.session_s, Exhausted(reason=reason, fix=fix)))
        if self.max_cost is not None and self.dollars(1.0) > 0:
            reason = f"trainer.max_cost={self.max_cost:g} is used up: {used.dollars:.2f} dollars over all sessions"
            fix = "the same command with run.resume=true and a larger trainer.max_cost"
            left = (self.max_cost - used.dollars) / self.dollars(1.0)
            found.append((left, Exhausted(reason=reason, fix=fix)))
        return found


class Meter:
    """What this run has used so far, over all its sessions.

    Args:
        budget: Price, devices and limits of this session.
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
        """Add what earlier sessions used."""
        self._seconds_before, self._dollars_before = state_dict["run_s"], state_dict["dollars"]

    @property
    def used(self) -> Used:
        """Up to now."""
        session = self._clock() - self._started
        return Used(
            run_s=self._seconds_before + session,
            session_s=session,
            dollars=self._dollars_before + self.budget.dollars(session),
        )

    def exhausted(self, *, reserve_s: float = 0.0) -> Exhausted | None:
        """As `Budget.exhausted`, now."""
        return self.budget.exhausted(self.used, reserve_s=reserve_s)
