"""Rounds of trials: A B C, then B C A, then C A B, each trial in a new process.

Alternating spreads a machine's slow minutes over all programs; rotating the order keeps one program from always
following the same other one.
"""

from __future__ import annotations

import logging
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.processes import ProcessResult, run_measured
from litgpt_core.core.errors import EnvironmentProblem

logger = logging.getLogger("litgpt_core.benchmarks")  # below the logger that every command configures


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What one trial measured, as read from the program's output."""

    tokens_per_s: float
    """Steady state."""
    precision: str
    """fp32, bf16, fp16 or a GGUF type: what its matrix products run in."""
    numbers: dict[str, float] = field(default_factory=dict)
    """Further measurements; the name ends in the unit, such as `compile_s`."""
    raw: list[float] = field(default_factory=list)
    """Every single observation in order: seconds of a step, or of a generation."""
    curve: list[tuple[float, float]] = field(default_factory=list)
    """`to-loss` only: seconds of training so far, and the validation loss then."""


@dataclass(frozen=True, kw_only=True)
class RunSpec:
    """One program of a benchmark: its command, and how its output is read."""

    label: str
    """Its name in tables; unique."""
    ours: bool = False
    """Whether ratios to the other programs are formed for it."""
    describes: str
    """One line: which program, with which settings, and what differs from the others' work."""
    command: Callable[[Path], list[str]]
    """Returns the command for a trial in the given empty folder; may write files there."""
    read: Callable[[Path, str], Measurement]
    """The trial's folder and the command's output -> what was measured."""
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One program in one round."""

    label: str
    round: int
    command: list[str]
    measurement: Measurement
    process: ProcessResult


def order_of_round(labels: Sequence[str], round_index: int) -> list[str]:
    """The order of the programs in a round: the list, rotated by one place each round."""
    shift = round_index % len(labels)
    return [*labels[shift:], *labels[:shift]]


def training_measurement(
    seconds: Sequence[float], *, tokens_per_step: int, precision: str, name: str, numbers: dict[str, float]
) -> Measurement:
    """The measurement of a training trial from the seconds of its steps."""
    rate = tokens_per_step / steady_seconds(seconds, name=name)
    return Measurement(tokens_per_s=rate, precision=precision, numbers=numbers, raw=list(seconds))


def steady_seconds(seconds: Sequence[float], *, name: str) -> float:
    """Seconds of a step in steady state: the median of the later half, after compilation and first allocations.

    Raises:
        EnvironmentProblem: There are fewer than three observations.
    """
    if len(seconds) < 3:
        raise EnvironmentProblem(
            f"{name} reported {len(seconds)} step times", needed="at least 3", fix="more steps: --steps N"
        )
    return statistics.median(seconds[len(seconds) // 2 :])


def run_rounds(
    specs: Sequence[RunSpec],
    *,
    rounds: int,
    folder: Path,
    environment: Mapping[str, str],
    timeout_s: float,
    fresh_caches: bool = False,
) -> list[Trial]:
    """Run every program once in every round.

    Args:
        specs: The programs.
        rounds: Trials of each.
        folder: Gets a folder for each trial, and for each program a compiler cache that is empty in the first round.
        environment: Variables for all programs, such as the number of threads.
        timeout_s: Seconds for one trial.
        fresh_caches: Start every trial, not only the first, with an empty compiler cache.

    Returns:
        The trials in the order in which they were run.

    Raises:
        EnvironmentProblem: A trial failed; none is left out silently.
    """
    by_label = {spec.label: spec for spec in specs}
    if len(by_label) != len(specs):
        raise EnvironmentProblem("two entries of the benchmark have the same label", needed="different labels")
    trials = []
    for index in range(rounds):
        for label in order_of_round(list(by_label), index):
            spec = by_label[label]
            place = folder / f"{label}-{index + 1}"
            place.mkdir(parents=True)
            caches = place / "compiled" if fresh_caches else folder / "compiled" / label
            (caches / "tmp").mkdir(parents=True, exist_ok=True)
            variables = {
                **environment,
                "TORCHINDUCTOR_CACHE_DIR": str(caches / "inductor"),
                "TRITON_CACHE_DIR": str(caches / "triton"),
                "TMPDIR": str(caches / "tmp"),  # where the compiler keeps precompiled headers
                **spec.environment,
            }
            command = spec.command(place)
            done = run_measured(command, folder=place, environment=variables, timeout_s=timeout_s, name=label)
            measured = spec.read(place, done.output)
            trials.append(Trial(label=label, round=index + 1, command=command, measurement=measured, process=done))
            rate, memory = f"{measured.tokens_per_s:,.0f} tokens/s", f"{done.peak_mb:,.0f} MB"
            logger.info("round %d of %d: %-18s %s, %.1f s, %s", index + 1, rounds, label, rate, done.wall_s, memory)
    return trials
