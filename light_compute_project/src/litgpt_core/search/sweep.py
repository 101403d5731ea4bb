"""`train.py -m`: every combination of comma-separated values, each run in a process of its own.

Separate processes, because a Trainer, a compiler cache and a CUDA context of one run must not colour the next. The same
command typed again continues a sweep: finished runs are left alone, the unfinished one goes on from its checkpoint.
"""

from __future__ import annotations

import logging
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from litgpt_core.config.trainer import WandbSettings
from litgpt_core.core.errors import ConfigError
from litgpt_core.core.lock import exclusive
from litgpt_core.core.packages import package_versions
from litgpt_core.core.source_code import git_state
from litgpt_core.distributed.requeue import request_requeue
from litgpt_core.search.child_process import POLL_S, ChildRun, StopSignals, end_left_over, refuse_ranks
from litgpt_core.search.sweep_grid import Point, make_grid
from litgpt_core.search.sweep_pictures import draw_sweep
from litgpt_core.search.sweep_record import Entry, SweepRecord, open_sweep
from litgpt_core.search.sweep_results import problems, summary, tables

logger = logging.getLogger(__name__)

JOBS = "sweep.jobs"
"""The one setting of a sweep that is none of its runs': how many run at a time."""


def sweep(overrides: Sequence[str], *, script: Path | None = None) -> int:
    """Run the grid, or what is left of it. All configs are checked before the first run starts.

    Args:
        overrides: What was typed besides `-m`.
        script: The `train.py` to start; None: the one that runs.

    Returns:
        0 if all ended well; the exit code of the first run that did not; 130 or 143 after a signal.
    """
    refuse_ranks()
    jobs, overrides = _jobs(overrides)
    grid = make_grid(overrides)
    grid.folder.mkdir(parents=True, exist_ok=True)
    with exclusive(grid.folder / ".lock", purpose=f"the sweep in {grid.folder}", keep=True):
        end_left_over(grid.folder)
        record = open_sweep(grid, command=shlex.join(["python", *sys.argv]))
        record.write()
        with StopSignals() as signals:
            _run_all(record, jobs=jobs, signals=signals, script=script or Path(sys.argv[0]))
            _report(record)
    if signals.received is not None:
        logger.warning("%s: the sweep is stopped; the same command continues it", signals.received.name)
        if signals.exit_code != 130:
            request_requeue()
    return signals.exit_code or record.exit_code


def _jobs(overrides: Sequence[str]) -> tuple[int, list[str]]:
    rest = [text for text in overrides if not text.startswith(f"{JOBS}=")]
    given = [text for text in overrides if text not in rest]
    number = given[-1].partition("=")[2] if given else "1"
    if not number.isdecimal() or int(number) < 1:
        raise ConfigError(f"{JOBS}={number}", needed="how many runs at a time, 1 or more", fix=f"{JOBS}=2")
    return int(number), rest


def _run_all(record: SweepRecord, *, jobs: int, signals: StopSignals, script: Path) -> None:
    """Start runs as places become free, until all have ended or a signal came."""
    waiting = list(reversed(record.unfinished))
    running: dict[int, tuple[Point, Entry, ChildRun]] = {}
    devices = visible_devices() if jobs > 1 else []
    if len(waiting) < len(record.entries):
        logger.info("sweep: %d of %d runs are done already", len(record.entries) - len(waiting), len(record.entries))
    while running or (waiting and not signals.count):
        if waiting and len(running) < jobs and not signals.count:
            place = min(set(range(jobs)) - running.keys())
            point, entry = waiting.pop()
            alone = {} if jobs == 1 else share_of_machine(place, jobs=jobs, devices=devices)
            child = _start(record, point, entry, script=script, environment=alone, to_file=jobs > 1)
            running[place] = (point, entry, child)
            continue
        for place, (point, entry, child) in list(running.items()):
            child.obey(signals)
            ending = child.poll()
            if ending is not None:
                del running[place]
                record.ended(point, entry, ending=ending)
                _tell(record, entry)
                if ending.stopped and not signals.count:
                    signals.take(ending.exit_code)
        time.sleep(POLL_S)


def _start(
    record: SweepRecord, point: Point, entry: Entry, *, script: Path, environment: dict[str, str], to_file: bool
) -> ChildRun:
    """One run, which continues where it was if it was started before."""
    overrides = list(point.overrides)
    if entry.sittings or record.grid.resume:
        overrides.append("run.resume=auto")
    if isinstance(point.config.logger, WandbSettings) and point.config.logger.group is None:
        overrides.append(f"logger.group={record.grid.name}")
    number = record.entries.index(entry) + 1
    logger.info("sweep: run %d of %d: %s", number, len(record.entries), shlex.join(overrides))
    record.started(entry)
    output = None
    if to_file:
        output = record.grid.folder / "output" / f"{point.name}.txt"
        output.parent.mkdir(exist_ok=True)
    return ChildRun(
        [sys.executable, str(script), *overrides],
        name=point.name,
        folder=record.grid.folder,
        output=output,
        environment=environment,
    )


def _tell(record: SweepRecord, entry: Entry) -> None:
    value = entry.result.get(record.metric)
    if entry.state == "done" and value is not None:
        logger.info("sweep: %s is done: %s %.4f", entry.name, record.metric, value)
    else:
        problem = f": {entry.problem}" if entry.problem else f", exit code {entry.exit_code}"
        logger.warning("sweep: %s %s%s", entry.name, entry.state, problem)


def _report(record: SweepRecord) -> None:
    """`sweep.json` with everything, `sweep.png`, and the tables on the terminal."""
    from rich.console import Console

    picture = record.grid.folder / "sweep.png"
    drawn, facts = draw_sweep(record, picture), summary(record)
    record.write(
        **facts,
        picture=picture.name if drawn else None,
        git=git_state(),
        versions=package_versions(),
    )
    console = Console()
    for table in tables(record):
        console.print()
        console.print(table)
    for line in problems(record):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    best = [p.config.run.folder for p in record.grid.points if facts["best"] and p.name == facts["best"]["name"]]
    paths = [*(f"best run: {folder.as_posix()}" for folder in best), record.path.as_posix()]
    console.print("\n" + "\n".join([*paths, *([picture.as_posix()] if drawn else [])]), highlight=False, soft_wrap=True)


def share_of_machine(place: int, *, jobs: int, devices: Sequence[str]) -> dict[str, str]:
    """Variables for one of several runs at a time: a GPU of its own, as far as there are, and its share of the cores.

    Args:
        place: 0 to jobs - 1.
        jobs: How many run at a time.
        devices: What `visible_devices` found.
    """
    share: dict[str, str] = {}
    if devices:
        mine = [device for number, device in enumerate(devices) if number % jobs == place]
        share["CUDA_VISIBLE_DEVICES"] = ",".join(mine or [devices[place % len(devices)]])
    if "OMP_NUM_THREADS" not in os.environ:
        share["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // jobs))
    return share


def visible_devices() -> list[str]:
    """GPUs that runs may be given, as `CUDA_VISIBLE_DEVICES` writes them; asks the driver's tool, not torch."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [device.strip() for device in given.split(",") if device.strip()]
    if shutil.which("nvidia-smi") is None:
        return []
    question = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
    done = subprocess.run(question, capture_output=True, text=True, check=False)
    return done.stdout.split() if done.returncode == 0 else []
