"""`benchmark.py train`: who takes part, what must be there before anything starts, the race, and what it leaves."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.processes import thread_variables
from benchmarks.provenance import measure_ceiling, provenance
from benchmarks.race import Contestant, run_race
from benchmarks.record import race_record
from benchmarks.train_bare import bare
from benchmarks.train_hf import hf
from benchmarks.train_litgpt import litgpt
from benchmarks.train_nanogpt import nanogpt
from benchmarks.train_ours import ours, parse_variant
from benchmarks.workload import Workload, make_workload
from litgpt_core.core.errors import ConfigError

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TrainRace:
    """What the command line says."""

    against: tuple[str, ...]
    """Names of peers, checked by `peers.choose_peers`."""
    shape: str
    """The experiment bench_<shape>."""
    variants: tuple[str, ...] = ()
    """`label=override override`, further contestants of ours."""
    overrides: tuple[str, ...] = ()
    """Change the work for everybody."""
    nanogpt_dir: Path | None = None
    rounds: int = 3
    steps: int | None = None
    threads: int | None = None
    device: str = "cpu"
    lap_timeout_s: float = 1800.0

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise ConfigError(f"--rounds {self.rounds}", needed="1 or more")


def choose(workload: Workload, names: Sequence[str], *, nanogpt_dir: Path | None) -> list[Contestant]:
    """The peers of these names, which `peers.choose_peers` has checked."""
    source = nanogpt_dir or Path()
    makers: dict[str, Callable[[str], Contestant]] = {
        "bare": lambda label: bare(workload, label=label),
        "nanogpt": lambda label: nanogpt(workload, label=label, source=source, compiled=False),
        "nanogpt-compiled": lambda label: nanogpt(workload, label=label, source=source, compiled=True),
        "litgpt": lambda label: litgpt(workload, label=label, precision="32-true"),
        "litgpt-bf16": lambda label: litgpt(workload, label=label, precision="bf16-mixed"),
        "hf": lambda label: hf(workload, label=label, bf16=False),
        "hf-bf16": lambda label: hf(workload, label=label, bf16=True),
        "hf-compiled": lambda label: hf(workload, label=label, bf16=False, compiled=True),
        "hf-bf16-compiled": lambda label: hf(workload, label=label, bf16=True, compiled=True),
    }
    return [makers[name](name) for name in names]


def run_training_race(race: TrainRace, *, folder: Path, command: str) -> dict[str, Any]:
    """Run the whole race in `folder`, an empty folder that the caller removes.

    Args:
        race: What the command line says.
        folder: Holds everything that the laps write.
        command: What was typed, for the record.

    Returns:
        The JSON of `record.race_record`.

    Raises:
        LightComputeError: Anything the user can mend, before the first lap where possible.
    """
    parsed = [parse_variant(text) for text in race.variants]
    workload = make_workload(
        race.shape, overrides=race.overrides, steps=race.steps, threads=race.threads, device=race.device
    )
    contestants = [ours(workload), *(ours(workload, label=label, overrides=extra) for label, extra in parsed)]
    contestants += choose(workload, race.against, nanogpt_dir=race.nanogpt_dir)
    logger.info("contestants: %s", ", ".join(c.label for c in contestants))
    ceiling = measure_ceiling(folder, device=workload.device, threads=workload.threads)
    origin = provenance(command, peers=race.against, nanogpt_dir=race.nanogpt_dir)
    laps = run_race(
        contestants,
        rounds=race.rounds,
        folder=folder,
        environment=thread_variables(workload.threads),
        timeout_s=race.lap_timeout_s,
    )
    return race_record(
        "train", contestants=contestants, laps=laps, work=workload.facts(), ceiling=ceiling, provenance=origin
    )
