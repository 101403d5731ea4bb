"""`scripts/slurm.py`: its arguments, the checks before anything is queued, the script on the screen or in the queue.

Everything that can be known on the login node is checked there: the request, the training's config, and whether both
fit each other.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from litgpt_core.core.errors import ConfigError, EnvironmentProblem, LightComputeError
from litgpt_core.deploy.job_request import JobRequest

if TYPE_CHECKING:
    from litgpt_core.config.compose import TrainConfig
    from litgpt_core.deploy.sbatch_script import TrainingJob

T = TypeVar("T")

LOGS = "slurm"
"""Folder below `run.dir` for scripts and what jobs say."""

_AS_TYPED = {
    *("gpus_per_node", "cpus_per_task", "mem", "time", "signal_grace", "max_requeues", "setup", "sbatch"),
    *("partition", "account", "qos", "constraint"),
}
_DECIDED = {
    "trainer.devices": "--gpus-per-node or --tasks-per-node",
    "trainer.num_nodes": "--nodes",
}


def parse(arguments: Sequence[str], *, description: str) -> argparse.Namespace:
    """The parsed command line; prints help and leaves the process where that was asked for."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add = parser.add_argument
    add("overrides", nargs="*", metavar="OVERRIDE", help="of the training, as for train.py: +experiment=baseline ...")
    add("--nodes", type=int, default=1, metavar="N", help="machines (1)")
    each = parser.add_mutually_exclusive_group()
    each.add_argument("--gpus-per-node", metavar="G", help="GPUs of each, and processes: 4, or a100:4")
    each.add_argument("--tasks-per-node", type=int, metavar="T", help="processes on each, without GPUs (1)")
    add("--cpus-per-task", type=int, metavar="C", help="cores of each process (threads, or loader workers + 1; 2)")
    add("--mem", metavar="SIZE", help="memory of each node: 64G")
    add("--time", metavar="TIME", help="12:00:00, 2-00 (days-hours), 90 (minutes), 90m, 12h, 2d")
    for name in ("partition", "account", "qos", "constraint"):
        add(f"--{name}", metavar="NAME", help="as for sbatch")
    add("--signal-grace", type=int, default=120, metavar="SECONDS", help="warning before the end, to save (120)")
    add("--max-requeues", type=int, default=200, metavar="N", help="times it returns to the queue by itself (200)")
    add("--setup", action="append", default=[], metavar="LINE", help="shell line before the training; repeatable")
    add("--sbatch", action="append", default=[], metavar="OPTION", help="any other option: --sbatch=--exclusive")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--print", "--dry-run", dest="submit", action="store_false", help="show the script (default)")
    what.add_argument("--submit", action="store_true", help="keep the script below run.dir and hand it to sbatch")
    parser.set_defaults(submit=False)
    return parser.parse_intermixed_args(arguments)


def carry_out(options: argparse.Namespace) -> str:
    """Check, render, and submit where that was asked for; returns what the user should see.

    Raises:
        LightComputeError: With everything that is wrong with the request and the config.
    """
    problems: list[str] = []
    request = _attempt(lambda: _request(options), problems)
    overrides = _attempt(lambda: _own(options.overrides), problems)
    if request is None or overrides is None:
        _attempt(lambda: _load(options.overrides), problems)
    if request is None or overrides is None or problems:
        raise ConfigError("\n".join(problems))
    job = _training_job(request, overrides)
    from litgpt_core.deploy.sbatch_script import render

    script = render(job, request)
    return _submitted(job, script) if options.submit else script


def _request(options: argparse.Namespace) -> JobRequest:
    gpus = options.gpus_per_node
    number = re.search(r"\d+$", gpus) if gpus else None
    return JobRequest(
        nodes=options.nodes,
        tasks_per_node=int(number[0])
        if number
        else options.tasks_per_node
        if options.tasks_per_node is not None
        else 1,
        **{name: value for name, value in vars(options).items() if name in _AS_TYPED},
    )


def _training_job(request: JobRequest, own: Sequence[str]) -> TrainingJob:
    from litgpt_core.deploy.queued_training import check_fit, cores_needed, job_overrides, train_command
    from litgpt_core.deploy.sbatch_script import TrainingJob

    devices, gpus = request.tasks_per_node, request.gpus_per_node is not None
    overrides = job_overrides(own, devices=devices, nodes=request.nodes, gpus=gpus)
    config = _load(overrides)
    check_fit(config, world_size=request.world_size, cores=request.cpus_per_task, option="--cpus-per-task")
    return TrainingJob(
        name=config.run.name,
        command=train_command(overrides),
        folder=Path.cwd(),
        logs=Path(config.run.dir).expanduser().resolve() / LOGS,
        cores=request.cpus_per_task or cores_needed(config),
    )


def _own(overrides: Sequence[str]) -> list[str]:
    from litgpt_core.deploy.queued_training import own_overrides

    return own_overrides(overrides, decided=_DECIDED)


def _load(overrides: Sequence[str]) -> TrainConfig:
    from litgpt_core.config.compose import load

    return load(overrides)


def _attempt(work: Callable[[], T], problems: list[str]) -> T | None:
    try:
        return work()
    except LightComputeError as error:
        problems.append(str(error))
        return None


def _submitted(job: TrainingJob, script: str) -> str:
    """Keep the script beside its logs and queue it; says how to watch and end the job."""
    job.logs.mkdir(parents=True, exist_ok=True)
    path = job.logs / f"{job.name}.sbatch"
    path.write_text(script, encoding="utf-8")
    number = submit(path)
    log = path.with_name(f"{job.name}-{number}.out")
    return (
        f"job {number} is in the queue: {_near(path)}\n"
        f"  its output   tail -F {_near(log)}\n"
        f"  its state    squeue --jobs {number}\n"
        f"  step aside   scancel --signal=USR1 {number}    (saves, and returns to the queue)\n"
        f"  end it       scancel {number}    (saves; the same command continues the run)\n"
    )


def submit(script: Path) -> str:
    """Hand a script to sbatch; the job's number.

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
    """The environment without what SLURM has told a job around us: the new one must not take it for its own."""
    inside = "SLURM_JOB_ID" in os.environ
    kept = ("SLURM_CONF", "SLURM_CLUSTERS")
    return {key: text for key, text in os.environ.items() if not inside or key in kept or not key.startswith("SLURM_")}


def _near(path: Path) -> str:
    """A path as it is typed here."""
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)
