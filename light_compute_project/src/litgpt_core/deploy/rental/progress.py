"""What a rental has done and cost so far, and will have cost at its end: from the mirrored rows and the ledger."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from litgpt_core.core.durations import duration_text
from litgpt_core.core.text import two_digits
from litgpt_core.deploy.rental.ledger import RentalState
from litgpt_core.training.rows import read_rows
from litgpt_core.training.run_folder import RunFolder


@dataclass(frozen=True, kw_only=True)
class RunProgress:
    """Numbers of a run, as far as its rows tell them."""

    step: int = 0
    max_steps: int = 0
    """0: not known."""
    tokens_per_s: float = math.nan
    loss: float = math.nan
    seconds_left: float = math.nan
    """Of training, at the rate of the last rows."""


def progress_of(folder: Path) -> RunProgress:
    """From a run folder here."""
    rows = [row for row in read_rows(RunFolder(folder).metrics) if row.get("step") is not None]
    trainer = RunFolder(folder).read_config().get("trainer") or {}
    max_steps = trainer.get("max_steps")
    max_steps = max_steps if isinstance(max_steps, int) else 0
    if not rows:
        return RunProgress(max_steps=max_steps)
    last, earlier = rows[-1], rows[max(0, len(rows) - 11)]
    step, rate = int(last["step"]), _number(last.get("tokens_per_s"))
    tokens = _number(last.get("tokens")) - _number(earlier.get("tokens"))
    steps = step - int(earlier["step"])
    left = math.nan
    if steps > 0 and rate > 0 and tokens > 0 and max_steps >= step:
        left = (max_steps - step) * tokens / steps / rate
    return RunProgress(
        step=step,
        max_steps=max_steps,
        tokens_per_s=rate,
        loss=_number(last.get("train_loss")),
        seconds_left=left,
    )


def progress_line(state: RentalState, folder: Path, *, now: float, word: str) -> str:
    """One line for a terminal: step, rate, dollars so far, dollars at the end."""
    found, spent = progress_of(folder), state.dollars(now)
    parts = [state.request.name, word or "starting"]
    if found.step:
        parts.append(f"step {found.step:,}" + (f" of {found.max_steps:,}" if found.max_steps else ""))
    if found.loss == found.loss:
        parts.append(f"loss {found.loss:.3f}")
    if found.tokens_per_s == found.tokens_per_s:
        parts.append(f"{two_digits(found.tokens_per_s)} tokens/s")
    parts.append(f"${spent:.2f} of ${state.request.budget:.2f}")
    if found.seconds_left == found.seconds_left and state.open_machines:
        end = spent + found.seconds_left / 3600 * state.hourly()
        parts.append(f"about {duration_text(found.seconds_left)} to go, ${end:.2f} at the end")
        if end > state.request.budget:
            parts.append("the budget will end it first")
    return " · ".join(parts)


def _number(value: object) -> float:
    return float(value) if isinstance(value, (int, float)) else math.nan
