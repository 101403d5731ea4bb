"""What the rendered script promises, kept by a real SLURM; the training is a small shell program here."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from litgpt_core.deploy.job_request import JobRequest
from litgpt_core.deploy.sbatch_script import TrainingJob, render

pytestmark = pytest.mark.serial

PYTHON = """
import os, signal, sys, time
from litgpt_core.core.console import configure_logging
from litgpt_core.distributed.requeue import request_requeue

rank = os.environ["SLURM_PROCID"]

def leave(number, frame):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print("saved", rank, flush=True)
    request_requeue()  # other ranks wait here until SLURM ends the job
    sys.exit(143)

if "SLURM_RESTART_COUNT" in os.environ:
    sys.exit(print("ended", rank))
configure_logging()
for number in (signal.SIGUSR1, signal.SIGTERM):
    signal.signal(number, leave)
print("ready", flush=True)
while True:
    time.sleep(0.1)
"""
SAVES_AND_LEAVES = shlex.join([sys.executable, "-c", PYTHON])
"""What a training does when it is warned, without the training."""


def submit(
    cluster: Any, folder: Path, program: str, *, name: str = "job", runs: int = 1, **asked: Any
) -> tuple[str, Path]:
    """A job whose every task runs `program` in bash; its number and its output. Several runs are an array."""
    folder.mkdir(parents=True, exist_ok=True)
    job = TrainingJob(name=name, commands=[["bash", "-c", program]] * runs, folder=folder, logs=folder, cores=2)
    number = cluster.submit(render(job, JobRequest(**asked)), folder)
    return number, folder / f"{name}-{number}.out"


def test_every_node_gets_its_tasks_and_all_know_where_rank_0_listens(cluster: Any, tmp_path: Path) -> None:
    folder = tmp_path / 'it\'s "my" folder, 100% $HOME'
    program = (
        'echo "rank $SLURM_PROCID node $SLURM_NODEID at $MASTER_ADDR:$MASTER_PORT cores $SLURM_CPUS_PER_TASK $PWD"'
    )
    number, said = submit(cluster, folder, program, nodes=2, tasks_per_node=2, time="10m")
    assert cluster.wait_for_state(number, "COMPLETED")["NumNodes"] == "2"
    port = 20_000 + int(number)
    wanted = [f"rank {rank} node {rank // 2} at 127.0.0.1:{port} cores 2 {folder}" for rank in range(4)]
    assert sorted(said.read_text().splitlines()) == wanted


def test_a_warned_run_returns_to_the_queue_and_ends_there_what_it_began(
    cluster: Any, tmp_path: Path, until: Callable[..., None]
) -> None:
    number, said = submit(cluster, tmp_path, SAVES_AND_LEAVES, nodes=2, tasks_per_node=1)
    until(lambda: said.exists() and said.read_text().count("ready") == 2, "both tasks")
    cluster.warn(number)
    cluster.let_it_return(number)
    cluster.wait_for_state(number, "COMPLETED")
    lines = said.read_text().splitlines()
    assert f"warning: SLURM job {number} is put back into the queue and continues there" in lines
    assert sorted(line for line in lines if line.startswith(("saved", "ended"))) == [
        "ended 0",
        "ended 1",
        "saved 0",
        "saved 1",
    ]


@pytest.mark.nightly
def test_a_job_that_makes_room_for_an_urgent_one_saves_and_returns(
    cluster: Any, tmp_path: Path, until: Callable[..., None]
) -> None:
    number, said = submit(cluster, tmp_path, SAVES_AND_LEAVES)
    until(lambda: said.exists() and "ready" in said.read_text(), "the task")
    room = ["--partition=urgent", "--nodes=2", "--cpus-per-task=4", f"--output={tmp_path}/urgent"]
    urgent = cluster.run("sbatch", "--parsable", *room, "--wrap", "echo here").stdout.strip()
    cluster.wait_for_state(urgent, "COMPLETED")
    cluster.let_it_return(number)
    cluster.wait_for_state(number, "COMPLETED")
    assert {"saved 0", "ended 0"} <= set(said.read_text().splitlines())


@pytest.mark.nightly
def test_a_warning_that_comes_before_python_listens_costs_nothing(
    cluster: Any, tmp_path: Path, until: Callable[..., None]
) -> None:
    program = '[ "$SLURM_RESTART_COUNT" ] && { echo ended; exit 0; }; echo ready; exec sleep 60'
    number, said = submit(cluster, tmp_path, program)
    until(lambda: said.exists() and "ready" in said.read_text(), "the task")
    cluster.warn(number)
    cluster.let_it_return(number)
    cluster.wait_for_state(number, "COMPLETED")
    assert "ended" in said.read_text().splitlines()


def test_a_job_that_is_cancelled_saves_and_stays_away(cluster: Any, tmp_path: Path, until: Callable[..., None]) -> None:
    number, said = submit(cluster, tmp_path, SAVES_AND_LEAVES)
    until(lambda: said.exists() and "ready" in said.read_text(), "the task")
    cluster.run("scancel", number)
    assert cluster.wait_for_state(number, "CANCELLED")["Restarts"] == "0"
    until(lambda: "saved 0" in said.read_text(), "saving")
    assert "is COMPLETING already" in said.read_text()


@pytest.mark.nightly
def test_a_job_returns_only_so_often(cluster: Any, tmp_path: Path, until: Callable[..., None]) -> None:
    number, said = submit(cluster, tmp_path, SAVES_AND_LEAVES, max_requeues=0)
    until(lambda: said.exists() and "ready" in said.read_text(), "the task")
    cluster.warn(number)
    job = cluster.wait_for_state(number, "FAILED")
    assert (job["Restarts"], job["ExitCode"]) == ("0", "143:0")


def test_a_failure_ends_every_task_and_is_not_repeated(cluster: Any, tmp_path: Path) -> None:
    program = 'if [ "$SLURM_PROCID" = 1 ]; then exit 2; fi; sleep 60'
    number, _ = submit(cluster, tmp_path, program, nodes=2, tasks_per_node=1)
    assert cluster.wait_for_state(number, "FAILED")["Restarts"] == "0"


@pytest.mark.nightly
def test_one_element_of_an_array_is_warned_and_returns_without_the_other(
    cluster: Any, tmp_path: Path, until: Callable[..., None]
) -> None:
    number, _ = submit(cluster, tmp_path, SAVES_AND_LEAVES, runs=2)
    said = [tmp_path / f"job-{number}_{element}.out" for element in (0, 1)]
    until(lambda: all(one.exists() and "ready" in one.read_text() for one in said), "both elements")
    for element in (1, 0):  # the other one is still running when the first has returned
        cluster.warn(f"{number}_{element}")
        cluster.let_it_return(f"{number}_{element}")
        cluster.wait_for_state(f"{number}_{element}", "COMPLETED")
        assert {"saved 0", "ended 0"} <= set(said[element].read_text().splitlines())
        assert "saved" not in said[0].read_text() or element == 0
