"""The race itself: A B C, B C A, C A B, ... until every round is run, each lap in a fresh process.

Alternating spreads a machine's slow minutes over everybody; rotating the order keeps one contestant from always
following the same other.
"""

from __future__ import annotations

import logging
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.processes import Finished, run_measured
from litgpt_core.core.errors import EnvironmentProblem

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What one lap says about itself."""

    tokens_per_s: float
    """Steady state."""
    precision: str
    """fp32, bf16 or fp16: what its matrix products run in."""
    numbers: dict[str, float] = field(default_factory=dict)
    """Further measurements, by name with unit, such as `compile_s`."""
    raw: list[float] = field(default_factory=list)
    """Every single observation, in order: seconds per step, or seconds per token."""
    curve: list[tuple[float, float]] = field(default_factory=list)
    """Seconds of training and the validation loss then, where a race is about that."""


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """Somebody in the race: a command, and how to read what it left."""

    label: str
    """Its name in tables; unique."""
    ours: bool
    """Whether ratios are formed for it."""
    describes: str
    """One line: which program, which settings, and what differs from the others' work."""
    command: Callable[[Path], list[str]]
    """The command for a lap whose empty folder is given; may write files there."""
    read: Callable[[Path, str], Reading]
    """The lap's folder and the command's output -> what was measured."""
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Lap:
    """One contestant in one round."""

    label: str
    round: int
    command: list[str]
    reading: Reading
    finished: Finished


def order_of_round(labels: Sequence[str], round_index: int) -> list[str]:
    """The contestants of a round: the list rotated by one place a round."""
    shift = round_index % len(labels)
    return [*labels[shift:], *labels[:shift]]


def steady_seconds(seconds: Sequence[float], *, name: str) -> float:
    """The usual seconds of a step: the median of the later half, when compiling and first allocations are over.

    Raises:
        EnvironmentProblem: There are too few observations.
    """
    if len(seconds) < 3:
        raise EnvironmentProblem(
            f"{name} reported {len(seconds)} step times", needed="at least 3", fix="more steps: --steps N"
        )
    return statistics.median(seconds[len(seconds) // 2 :])


def run_race(
    contestants: Sequence[Contestant],
    *,
    rounds: int,
    folder: Path,
    environment: Mapping[str, str],
    timeout_s: float,
    fresh_caches: bool = False,
) -> list[Lap]:
    """Run every lap.

    Args:
        contestants: Who takes part.
        rounds: How often each runs.
        folder: Holds a folder for each lap, and for each contestant its own compiler cache, empty in the first round.
        environment: Variables for everybody, such as the number of threads.
        timeout_s: Seconds for one lap.
        fresh_caches: Begin every lap, not only the first, with an empty compiler cache.

    Returns:
        The laps in the order in which they were run.

    Raises:
        EnvironmentProblem: A lap failed; nothing is left out silently.
    """
    by_label = {contestant.label: contestant for contestant in contestants}
    if len(by_label) != len(contestants):
        raise EnvironmentProblem("two contestants have the same label", needed="different labels")
    laps = []
    for index in range(rounds):
        for label in order_of_round(list(by_label), index):
            contestant = by_label[label]
            lap_folder = folder / f"{label}-{index + 1}"
            lap_folder.mkdir(parents=True)
            caches = lap_folder / "compiled" if fresh_caches else folder / "compiled" / label
            (caches / "tmp").mkdir(parents=True, exist_ok=True)
            command = contestant.command(lap_folder)
            finished = run_measured(
                command,
                folder=lap_folder,
                environment={
                    **environment,
                    "TORCHINDUCTOR_CACHE_DIR": str(caches / "inductor"),
                    "TRITON_CACHE_DIR": str(caches / "triton"),
                    "TMPDIR": str(caches / "tmp"),  # where precompiled headers are kept, whatever the others say
                    **contestant.environment,
                },
                timeout_s=timeout_s,
                name=label,
            )
            reading = contestant.read(lap_folder, finished.output)
            laps.append(Lap(label=label, round=index + 1, command=command, reading=reading, finished=finished))
            logger.info(
                "round %d of %d: %-18s %12s tokens/s  %6.1f s in all  %7.0f MB",
                index + 1,
                rounds,
                label,
                f"{reading.tokens_per_s:,.0f}",
                finished.wall_s,
                finished.peak_mb,
            )
    return laps
