"""`train.py ... hydra/launcher=submitit_slurm`: the run, or with `-m` every run of the grid, as a job of a queue.

The command checks everything first, hands the jobs in and leaves; with `submitit_local` it stays and runs them here.
Jobs continue a run that is there already (`run.resume=auto`), so the same command typed again loses nothing.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from litgpt_core.deploy.launcher_settings import (
    CHOICE,
    LocalLauncher,
    SlurmLauncher,
    is_for_launcher,
    parse_launcher,
    settings_for_submitit,
)
from litgpt_core.deploy.queued_training import check_fit, job_overrides, own_overrides, train_command
from litgpt_core.errors import ConfigError, EnvironmentProblem, LightComputeError
from litgpt_core.training.child_run import GRACE_S, StopSignals
from litgpt_core.training.sweep_grid import Point, make_grid

if TYPE_CHECKING:
    import submitit

logger = logging.getLogger(__name__)

_DECIDED = {"trainer.devices": "hydra.launcher.tasks_per_node", "trainer.num_nodes": "hydra.launcher.nodes"}


def launch(arguments: Sequence[str]) -> int:
    """Check, submit, and wait where that is wanted.

    Args:
        arguments: The whole command line of `train.py`, with `-m` for a grid.

    Returns:
        0; with `wait_for_completion` 1 if a job failed, 130 or 143 after a signal.

    Raises:
        LightComputeError: With everything that is wrong; nothing is submitted then.
    """
    rest = [text for text in arguments if not is_for_launcher(text) and text not in ("-m", "--multirun")]
    launcher = parse_launcher([text for text in arguments if is_for_launcher(text)])
    points = _points(rest, launcher, swept=bool({"-m", "--multirun"} & set(arguments)))
    jobs = [_job(point, launcher) for point in points]
    folder = launcher.submitit_folder or str(Path(points[0].config.run.dir).expanduser() / ".submitit" / "%j")
    executor = _executor(launcher, folder=folder, name=points[0].name)
    names = [point.name for point in points]
    if launcher.cluster == "local":
        return _run_here(executor, jobs, names=names, at_a_time=launcher.array_parallelism)
    submitted = _submit(executor, jobs)
    for name, job in zip(names, submitted, strict=True):
        logger.info("job %s: %s; its output: %s", job.job_id, name, job.paths.stderr)
    logger.info("squeue --me shows them; scancel JOB ends one, which saves first; the same command continues it")
    return _wait(submitted, names=names) if launcher.waits else 0


def _points(overrides: Sequence[str], launcher: LocalLauncher, *, swept: bool) -> list[Point]:
    decided = _DECIDED if launcher.world_size > 1 else {}
    if any(text.startswith("sweep.jobs=") for text in overrides):
        raise ConfigError("sweep.jobs is for a sweep without a launcher", fix="hydra.launcher.array_parallelism=N")
    own = own_overrides(overrides, decided=decided)
    devices = launcher.tasks_per_node if launcher.world_size > 1 else None
    points = make_grid(
        job_overrides(own, devices=devices, nodes=launcher.nodes, gpus=bool(launcher.gpus_per_node))
    ).points
    if len(points) > 1 and not swept:
        raise ConfigError(
            f"{len(points)} runs are asked for", needed="one, or -m for a job of each", fix="train.py -m ..."
        )
    problems = []
    for point in points:
        try:
            check_fit(
                point.config,
                world_size=launcher.world_size,
                cores=launcher.cpus_per_task,
                option="hydra.launcher.cpus_per_task",
            )
        except LightComputeError as error:
            problems.append(f"{point.name}: {error}" if len(points) > 1 else str(error))
    if problems:
        raise ConfigError("\n".join(problems))
    return points


def _job(point: Point, launcher: LocalLauncher) -> Any:
    from litgpt_core.deploy.submitit_job import TrainJob

    ranks = launcher.world_size > 1
    return TrainJob(train_command(point.overrides), folder=str(Path.cwd()), tasks_are_ranks=ranks)


def _executor(launcher: LocalLauncher, *, folder: str, name: str) -> submitit.AutoExecutor:
    import submitit

    options = {"slurm_max_num_timeout": launcher.max_num_timeout} if isinstance(launcher, SlurmLauncher) else {}
    try:
        executor = submitit.AutoExecutor(folder=folder, cluster=launcher.cluster, **options)
    except RuntimeError as error:
        raise EnvironmentProblem(
            f"this machine has no srun ({error})",
            needed="a login node of a SLURM cluster",
            fix=f"{CHOICE}=submitit_local runs the same jobs here",
        ) from error
    shared = list(submitit.AutoExecutor._typed_parameters())
    executor.update_parameters(**settings_for_submitit(launcher, name=name, shared=shared))
    return executor


def _submit(executor: submitit.AutoExecutor, jobs: Sequence[Any]) -> list[submitit.Job[int]]:
    """One job, or an array of all; the queue's refusal is the user's to mend."""
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    try:
        if len(jobs) == 1:
            return [executor.submit(jobs[0])]
        with executor.batch():
            submitted = [executor.submit(job) for job in jobs]
    except (FailedJobError, FailedSubmissionError) as error:
        raise EnvironmentProblem(
            f"the queue refused the job: {error}",
            needed="names, sizes and times that this cluster grants: sinfo lists partitions and their limits",
            fix="other hydra.launcher settings",
        ) from error
    return submitted


def _run_here(executor: submitit.AutoExecutor, jobs: Sequence[Any], *, names: Sequence[str], at_a_time: int) -> int:
    """Jobs of this machine, so many at a time. A signal ends them; their trainings save before this returns."""
    waiting = list(zip(names, jobs, strict=True))
    running: list[tuple[str, submitit.Job[int]]] = []
    failed = False
    with StopSignals() as signals:
        while (waiting or running) and signals.received is None:
            while waiting and len(running) < at_a_time:
                name, job = waiting.pop(0)
                running.append((name, executor.submit(job)))
                logger.info("%s: started; its output: %s", name, running[-1][1].paths.stderr)
            for name, started in [pair for pair in running if pair[1].done()]:
                running.remove((name, started))
                failed |= not _ended_well(name, started)
            time.sleep(0.2)
        if signals.received is not None:
            _end([job for _, job in running])
            logger.warning("%s: stopped; the same command continues", signals.received.name)
    return signals.exit_code or int(failed)


def _end(running: Sequence[submitit.Job[int]]) -> None:
    """Cancel jobs of this machine, whose numbers are those of their processes, and wait until all of these are gone."""
    processes: list[psutil.Process] = []
    for job in running:
        with contextlib.suppress(psutil.NoSuchProcess):
            processes += psutil.Process(int(job.job_id)).children(recursive=True)
        job.cancel(check=False)
    psutil.wait_procs(processes, timeout=GRACE_S)
    while not all(job.done() for job in running):
        time.sleep(0.1)


def _wait(submitted: Sequence[submitit.Job[int]], *, names: Sequence[str]) -> int:
    """Until every job has ended, as far as the queue or a result on the disk tells."""
    with StopSignals() as signals:
        while not all(job.done() for job in submitted):
            if signals.received is not None:
                logger.warning("%s: the jobs stay in the queue", signals.received.name)
                return signals.exit_code
            time.sleep(1.0)
    ended_well = [_ended_well(name, job) for name, job in zip(names, submitted, strict=True)]
    return int(not all(ended_well))


def _ended_well(name: str, job: submitit.Job[int]) -> bool:
    problem = job.exception()
    if problem is None:
        logger.info("%s: done", name)
        return True
    path = Path(job.paths.stderr)
    last = path.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:] if path.is_file() else []
    logger.warning("%s: failed: %s; its output: %s", name, *(last or ["no output"]), os.path.relpath(path))
    return False
