"""`lcp slurm`: its arguments, the checks before anything is queued, and the script, printed or submitted.

Everything that can be known on the login node is checked there: the request, the config of every run, and whether they
fit each other.
"""

from __future__ import annotations

import argparse
import logging
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from litgpt_core.core.command_line import CommandParser
from litgpt_core.core.errors import ConfigError, EnvironmentProblem, LightComputeError
from litgpt_core.core.replaceable import refuse_foreign_file
from litgpt_core.deploy.job_request import JobRequest

if TYPE_CHECKING:
    from litgpt_core.deploy.sbatch_script import TrainingJob
    from litgpt_core.search.sweep_grid import SweepGrid

T = TypeVar("T")

logger = logging.getLogger(__name__)

LOGS = "slurm"
"""Folder below `run.dir` for scripts and the output of jobs."""

_AS_GIVEN = {
    *("gpus_per_node", "cpus_per_task", "mem", "time", "signal_grace", "max_requeues", "setup", "sbatch"),
    *("partition", "account", "qos", "constraint", "array_parallelism"),
}
_DECIDED = {
    "trainer.devices": "--gpus_per_node or --tasks_per_node",
    "trainer.num_nodes": "--nodes",
}


def parse(arguments: Sequence[str], *, description: str) -> argparse.Namespace:
    """The parsed command line; prints help and exits where that is requested."""
    parser = CommandParser("slurm", description=description, allow_abbrev=False)
    add = parser.add_argument
    add("overrides", nargs="*", metavar="OVERRIDE", help="of the training, as for lcp train: +experiment=baseline ...")
    add("-m", "--multirun", action="store_true", help="a sweep: one job array with an element for each run")
    add("--array_parallelism", type=int, metavar="N", help="runs of a sweep at the same time (no limit)")
    add("--nodes", type=int, default=1, metavar="N", help="nodes of each run (1)")
    each = parser.add_mutually_exclusive_group()
    each.add_argument("--gpus_per_node", metavar="G", help="GPUs of each node, one process per GPU: 4, or a100:4")
    each.add_argument("--tasks_per_node", type=int, metavar="T", help="processes on each node, without GPUs (1)")
    add("--cpus_per_task", type=int, metavar="C", help="cores of each process (threads, or loader workers + 1; 2)")
    add("--mem", metavar="SIZE", help="memory of each node: 64G")
    add("--time", metavar="TIME", help="time limit: 90m, 12h, 2d, 12:00:00, 2-12 (days-hours), or seconds")
    for name in ("partition", "account", "qos", "constraint"):
        add(f"--{name}", metavar="NAME", help="as for sbatch")
    add("--signal_grace", default="120", metavar="TIME", help="warning before the time limit, to save (120 seconds)")
    add("--max_requeues", type=int, default=200, metavar="N", help="how often the job may requeue itself (200)")
    add("--setup", action="append", default=[], metavar="LINE", help="shell line before the training; repeatable")
    add("--sbatch", action="append", default=[], metavar="OPTION", help="any other option: --sbatch=--exclusive")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--print", "--dry_run", dest="submit", action="store_false", help="print the script (default)")
    what.add_argument("--submit", action="store_true", help="write the script below run.dir and submit it with sbatch")
    parser.set_defaults(submit=False)
    return parser.parse_intermixed_args(arguments)


def carry_out(options: argparse.Namespace) -> str:
    """Check, render, and submit where that is requested; returns what the user should see.

    Raises:
        LightComputeError: With everything that is wrong with the request and the config.
    """
    problems: list[str] = []
    request = _attempt(lambda: _request(options), problems)
    overrides = _attempt(lambda: _own(options.overrides), problems)
    if request is None or overrides is None:
        _attempt(lambda: _grid(options.overrides, multirun=True), problems)
    if request is None or overrides is None or problems:
        raise ConfigError("\n".join(problems))
    if request.time is not None and request.time.isdecimal():
        logger.warning(
            "--time=%s is %s seconds, as for every option here; sbatch itself would read minutes: --time=%sm",
            *[request.time] * 3,
        )
    job = _training_job(request, overrides, multirun=options.multirun)
    from litgpt_core.deploy.sbatch_script import render

    script = render(job, request)
    return _submitted(job, script) if options.submit else script


def _request(options: argparse.Namespace) -> JobRequest:
    gpus = options.gpus_per_node
    number = re.search(r"\d+$", gpus) if gpus else None
    tasks = 1 if options.tasks_per_node is None else options.tasks_per_node
    return JobRequest(
        nodes=options.nodes,
        tasks_per_node=int(number[0]) if number else tasks,
        **{name: value for name, value in vars(options).items() if name in _AS_GIVEN},
    )


def _training_job(request: JobRequest, own: Sequence[str], *, multirun: bool) -> TrainingJob:
    from litgpt_core.deploy.queued_training import check_fit, cores_needed, job_overrides, train_command
    from litgpt_core.deploy.sbatch_script import TrainingJob

    devices, gpus = request.tasks_per_node, request.gpus_per_node is not None
    grid = _grid(job_overrides(own, devices=devices, nodes=request.nodes, gpus=gpus), multirun=multirun)
    several, problems = len(grid.points) > 1, list[str]()
    for point in grid.points:
        try:
            check_fit(
                point.config, world_size=request.world_size, cores=request.cpus_per_task, option="--cpus_per_task"
            )
        except ConfigError as error:
            problems.append(f"{point.name}: {error}" if several else str(error))
    if problems:
        raise ConfigError("\n".join(problems))
    first = grid.points[0]
    return TrainingJob(
        name=grid.name if several else first.name,
        commands=[train_command(point.overrides) for point in grid.points],
        folder=Path.cwd(),
        logs=Path(first.config.run.dir).expanduser().resolve() / LOGS,
        cores=request.cpus_per_task or max(cores_needed(point.config) for point in grid.points),
    )


def _own(overrides: Sequence[str]) -> list[str]:
    from litgpt_core.deploy.queued_training import own_overrides

    return own_overrides(overrides, decided=_DECIDED)


def _grid(overrides: Sequence[str], *, multirun: bool) -> SweepGrid:
    from litgpt_core.search.sweep_grid import make_grid

    if any(text.startswith("sweep.jobs=") for text in overrides):
        raise ConfigError("sweep.jobs has no effect in a queue", fix="--array_parallelism N")
    grid = make_grid(overrides)
    if len(grid.points) > 1 and not multirun:
        raise ConfigError(
            f"{len(grid.points)} runs are requested", needed="one run, or -m for a job array", fix="lcp slurm -m ..."
        )
    return grid


def _attempt(work: Callable[[], T], problems: list[str]) -> T | None:
    try:
        return work()
    except LightComputeError as error:
        problems.append(str(error))
        return None


def _submitted(job: TrainingJob, script: str) -> str:
    """Write the script beside its logs and submit it; says how to watch and end the job."""
    job.logs.mkdir(parents=True, exist_ok=True)
    path = job.logs / f"{job.name}.sbatch"
    refuse_foreign_file(path, contains=b"#SBATCH --job-name=", what="a script of this command")
    path.write_text(script, encoding="utf-8")
    number = submit(path)
    log = _near(path.with_name(job.output.replace("%j", number).replace("%A_%a", f"{number}_0")))
    several = len(job.commands) > 1
    what = f"job {number}" + (f", an array of {len(job.commands)} runs," if several else "")
    each = f"    ({number}_1 and so on for the other runs)" if several else ""
    return (
        f"{what} is in the queue: {_near(path)}\n"
        f"  its output   tail -F {log}{each}\n"
        f"  its state    squeue --jobs {number}\n"
        f"  requeue      scancel --signal=USR1 {number}    (saves, and returns to the queue)\n"
        f"  cancel       scancel {number}    (saves; the same command continues)\n"
    )


def submit(script: Path) -> str:
    """Submit a script with sbatch; the job's number.

    Raises:
        EnvironmentProblem: There is no sbatch here, or it refused.
    """
    program = shutil.which("sbatch")
    if program is None:
        raise EnvironmentProblem(
            "this machine has no sbatch",
            needed="a login node of a SLURM cluster",
            fix=f"copy the project there, or look at the script: {script}",
        )
    done = subprocess.run(
        [program, "--parsable", str(script)], capture_output=True, text=True, check=False, env=_outside_jobs()
    )
    if done.returncode:
        raise EnvironmentProblem(
            f"sbatch refused the job: {(done.stderr or done.stdout).strip()}",
            needed="names, sizes and times that this cluster grants: sinfo lists partitions and their limits",
            fix=f"other options, or sbatch --test-only {script}",
        )
    return done.stdout.strip().partition(";")[0]


def _outside_jobs() -> dict[str, str]:
    """The environment without the variables of a SLURM job around us: the new job must not take them for its own."""
    inside = "SLURM_JOB_ID" in os.environ
    kept = ("SLURM_CONF", "SLURM_CLUSTERS")
    return {key: text for key, text in os.environ.items() if not inside or key in kept or not key.startswith("SLURM_")}


def _near(path: Path) -> str:
    """A path relative to this folder where it lies below it."""
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)
