"""A job's life with a stand-in for train.py: it ends, fails, or is told to save; and it survives pickling."""

from __future__ import annotations

import os
import pickle
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from litgpt_core.deploy.submitit_job import TrainingFailed, TrainJob, address_of, rank_variables

SAVES = """
import pathlib, signal, sys, time
def save(number, frame):
    pathlib.Path("saved").write_text("yes")
    sys.exit(143)
signal.signal(signal.SIGTERM, save)
pathlib.Path("ready").touch()
while True:
    time.sleep(0.05)
"""


def job(folder: Path, program: str, *, ranks: bool = False) -> TrainJob:
    return TrainJob([sys.executable, "-c", program], folder=str(folder), tasks_are_ranks=ranks)


def test_it_runs_where_the_command_was_typed(tmp_path: Path) -> None:
    assert job(tmp_path, "open('here', 'w')")() == 0
    assert (tmp_path / "here").exists()


def test_a_failure_is_the_jobs_failure(tmp_path: Path) -> None:
    with pytest.raises(TrainingFailed, match="exit code 2"):
        job(tmp_path, "raise SystemExit(2)")()


def test_the_training_asks_no_queue_by_itself_and_ends_with_its_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIGHT_COMPUTE_REQUEUE", "1")
    names = "('LIGHT_COMPUTE_REQUEUE', 'LIGHT_COMPUTE_PARENT')"
    job(tmp_path, f"import os; print(*map(os.getenv, {names}), end='', file=open('said', 'w'))")()
    assert (tmp_path / "said").read_text() == f"None {os.getpid()}"


def test_a_warning_lets_it_save_and_hands_over_the_same_job(tmp_path: Path) -> None:
    training, handed = job(tmp_path, SAVES), []

    def warned(number: int, frame: object) -> None:  # as submitit does it: in a handler, amid the call
        handed.append(training.checkpoint())
        assert (tmp_path / "saved").read_text() == "yes"
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGUSR2, warned)
    try:
        threading.Thread(target=_signal_once, args=(tmp_path / "ready",)).start()
        with pytest.raises(KeyboardInterrupt):
            training()
    finally:
        signal.signal(signal.SIGUSR2, before)
    again = pickle.loads(pickle.dumps(handed[0].function))
    assert (again.command, again.folder) == (training.command, training.folder)


def _signal_once(ready: Path) -> None:
    while not ready.exists():
        time.sleep(0.05)
    os.kill(os.getpid(), signal.SIGUSR2)


def test_a_warning_before_the_training_starts_hands_over_at_once(tmp_path: Path) -> None:
    training = job(tmp_path, SAVES)
    assert training.checkpoint().function is training


def test_tasks_of_a_queue_are_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    place = {"SUBMITIT_EXECUTOR": "slurm", "SLURM_JOB_ID": "20017", "SLURM_NTASKS": "4", "SLURM_JOB_NUM_NODES": "2"}
    place |= {"SLURM_PROCID": "3", "SLURM_LOCALID": "1", "SLURM_NODEID": "1", "SLURM_JOB_NODELIST": "localhost,other"}
    for name, value in place.items():
        monkeypatch.setenv(name, value)
    assert rank_variables() == {
        "RANK": "3",
        "LOCAL_RANK": "1",
        "WORLD_SIZE": "4",
        "LOCAL_WORLD_SIZE": "2",
        "GROUP_RANK": "1",
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": "20017",
    }


def test_a_node_that_no_name_service_knows_has_slurms_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scontrol = tmp_path / "scontrol"
    scontrol.write_text('#!/bin/sh\necho "NodeName=$3 NodeAddr=10.0.0.7 NodeHostName=x"\n')
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    assert address_of("no-such-node.invalid") == "10.0.0.7"
    assert address_of("localhost") == "localhost"
