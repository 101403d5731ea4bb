"""`train.py ... hydra/launcher=submitit_slurm`: the run, or with `-m` every run of the grid, as a job of a queue.

The command checks everything first, hands the jobs in and leaves; with `submitit_local` it stays and runs them here.
Jobs continue a run that is there already (`run.resume=auto`), so the same command typed again loses nothing.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from litgpt_core.core.errors import ConfigError, EnvironmentProblem, LightComputeError
from litgpt_core.deploy.launcher_settings import (
    CHOICE,
    LocalLauncher,
    SlurmLauncher,
    is_for_launcher,
    parse_launcher,
    settings_for_submitit,
)
from litgpt_core.deploy.queued_training import check_fit, job_overrides, own_overrides, train_command
from litgpt_core.search.child_process import GRACE_S, StopSignals
from litgpt_core.search.sweep_grid import Grid, Point, make_grid

if TYPE_CHECKING:
    import submitit

logger = logging.getLogger(__name__)

_DECIDED = {"trainer.devices": "hydra.launcher.tasks_per_node", "trainer.num_nodes": "hydra.launcher.nodes"}


@dataclass(frozen=True, kw_only=True)
class Queued:
    """One run as a job."""

    name: str
    """Of the run."""
    job: submitit.Job[int]
    log: Path
    """Where the training's log lines go."""

    def ended_well(self) -> bool:
        """Once it has ended: whether by finishing; says so either way."""
        if self.job.exception() is None:
            logger.info("%s: done", self.name)
            return True
        text = self.log.read_text(encoding="utf-8", errors="replace") if self.log.is_file() else ""
        own = text.rpartition("submitit ERROR")[0] or text  # before submitit's account of it
        last = [line for line in own.splitlines() if line[:1].strip()][-1:] or ["it said nothing"]
        logger.warning("%s: failed: %s; its output: %s", self.name, last[0], self.log)
        return False


def launch(arguments: Sequence[str]) -> int:
    """Check, submit, and wait where that is wanted.

    Args:
        arguments: The whole command line of `train.py`, with `-m` for a grid.

    Returns:
        0; where it waits 1 if a job failed, and 130 or 143 after a signal.

    Raises:
        LightComputeError: With everything that is wrong; nothing is submitted then.
    """
    rest = [text for text in arguments if not is_for_launcher(text) and text not in ("-m", "--multirun")]
    launcher = parse_launcher([text for text in arguments if is_for_launcher(text)])
    grid = _grid(rest, launcher, swept=bool({"-m", "--multirun"} & set(arguments)))
    names = [point.name for point in grid.points]
    folder = launcher.submitit_folder or str(Path(grid.points[0].config.run.dir).expanduser() / ".submitit" / "%j")
    executor = _executor(launcher, folder=folder, name=grid.name if len(names) > 1 else names[0])

    def submit(points: Sequence[Point]) -> list[Queued]:
        jobs = _submit(executor, [_job(point, launcher) for point in points])
        logs = [job.paths.stdout if launcher.stderr_to_stdout else job.paths.stderr for job in jobs]
        return [Queued(name=p.name, job=job, log=log) for p, job, log in zip(points, jobs, logs, strict=True)]

    if launcher.cluster == "local":
        return _run_here(grid.points, submit, at_a_time=launcher.array_parallelism)
    queued = submit(grid.points)
    for one in queued:
        logger.info("job %s: %s; its output: %s", one.job.job_id, one.name, one.log)
    logger.info("squeue --me shows them; scancel JOB ends one, which saves first; the same command continues it")
    return _wait(queued) if launcher.waits else 0


def _grid(overrides: Sequence[str], launcher: LocalLauncher, *, swept: bool) -> Grid:
    decided = _DECIDED if launcher.world_size > 1 else {}
    if any(text.startswith("sweep.jobs=") for text in overrides):
        raise ConfigError("sweep.jobs is for a sweep without a launcher", fix="hydra.launcher.array_parallelism=N")
    own = own_overrides(overrides, decided=decided)
    devices = launcher.tasks_per_node if launcher.world_size > 1 else None
    grid = make_grid(job_overrides(own, devices=devices, nodes=launcher.nodes, gpus=bool(launcher.gpus_per_node)))
    if len(grid.points) > 1 and not swept:
        raise ConfigError(
            f"{len(grid.points)} runs are asked for", needed="one, or -m for a job of each", fix="train.py -m ..."
        )
    problems = []
    for point in grid.points:
        try:
            check_fit(
                point.config,
                world_size=launcher.world_size,
                cores=launcher.cpus_per_task,
                option="hydra.launcher.cpus_per_task",
            )
        except LightComputeError as error:
            problems.append(f"{point.name}: {error}" if len(grid.points) > 1 else str(error))
    if problems:
        raise ConfigError("\n".join(problems))
    return grid


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


def _run_here(points: Sequence[Point], submit: Callable[[Sequence[Point]], list[Queued]], *, at_a_time: int) -> int:
    """Jobs of this machine, so many at a time. A signal ends them; their trainings save before this returns."""
    waiting, running, failed = list(points), list[Queued](), False
    with StopSignals() as signals:
        while (waiting or running) and signals.received is None:
            while waiting and len(running) < at_a_time:
                running += submit([waiting.pop(0)])
                logger.info("%s: started; its output: %s", running[-1].name, running[-1].log)
            for one in [one for one in running if one.job.done()]:
                running.remove(one)
                failed |= not one.ended_well()
            time.sleep(0.2)
        if signals.received is not None:
            _end([one.job for one in running])
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


def _wait(queued: Sequence[Queued]) -> int:
    """Until every job has ended, as far as the queue or a result on the disk tells."""
    with StopSignals() as signals:
        while not all(one.job.done() for one in queued):
            if signals.received is not None:
                logger.warning("%s: the jobs stay in the queue", signals.received.name)
                return signals.exit_code
            time.sleep(1.0)
    failed = [one.name for one in queued if not one.ended_well()]
    return int(bool(failed))
