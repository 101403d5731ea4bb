"""Who asks SLURM for another turn, and when. `scontrol` is a script that writes down what it was asked."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
from pathlib import Path

import pytest

from litgpt_core.distributed import requeue
from litgpt_core.distributed.requeue import job_id, request_requeue

FAKE = """#!/bin/sh
echo "$@" >> "{log}"
case "$1" in
    show) echo "JobId=7 JobName=x JobState={state} Reason=None" ;;
    requeue) echo "{complaint}" >&2; exit {code} ;;
esac
"""


class Scontrol:
    def __init__(self, folder: Path) -> None:
        self.folder, self.log = folder, folder / "asked"
        self.behave()

    def behave(self, *, state: str = "RUNNING", complaint: str = "", code: int = 0) -> None:
        program = self.folder / "scontrol"
        program.write_text(FAKE.format(log=self.log, state=state, complaint=complaint, code=code))
        program.chmod(0o755)

    @property
    def asked(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []


@pytest.fixture
def scontrol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scontrol:
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    for name in ("SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID", "RANK", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("LIGHT_COMPUTE_REQUEUE", "1")
    return Scontrol(tmp_path)


@pytest.mark.parametrize("state", ["RUNNING", "SIGNALING"])
def test_a_running_job_is_put_back_into_the_queue(scontrol: Scontrol, state: str) -> None:
    scontrol.behave(state=state)
    assert request_requeue()
    assert scontrol.asked == ["show job 7 --oneliner", "requeue 7"]


def test_an_element_of_an_array_asks_for_itself_alone(scontrol: Scontrol, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "5")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "2")
    assert request_requeue() and scontrol.asked[-1] == "requeue 5_2"


@pytest.mark.parametrize(
    ("name", "value"),
    [("LIGHT_COMPUTE_REQUEUE", None), ("LIGHT_COMPUTE_REQUEUE", "0"), ("SLURM_JOB_ID", None)],
)
def test_nobody_asks_outside_a_job_or_unless_told_to(
    scontrol: Scontrol, monkeypatch: pytest.MonkeyPatch, name: str, value: str | None
) -> None:
    if value is None:
        monkeypatch.delenv(name)
    else:
        monkeypatch.setenv(name, value)
    assert not request_requeue() and scontrol.asked == []


@pytest.mark.serial
@pytest.mark.parametrize("name", ["RANK", "SLURM_PROCID"])
def test_other_ranks_leave_the_asking_to_rank_0_and_stay_meanwhile(
    scontrol: Scontrol, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    handler = signal.getsignal(signal.SIGTERM)
    monkeypatch.setenv(name, "1")
    monkeypatch.setattr(requeue, "_PATIENCE_S", 60.0)
    slurm = subprocess.Popen(["sh", "-c", f"sleep 0.5; kill -TERM {os.getpid()}"])
    assert not request_requeue() and slurm.wait() == 0  # not before SLURM has spoken, and not for a minute
    assert scontrol.asked == [] and signal.getsignal(signal.SIGTERM) == handler
    monkeypatch.setattr(requeue, "_PATIENCE_S", 0.1)
    assert not request_requeue() and scontrol.asked == []
    monkeypatch.setenv(name, "0")
    assert request_requeue()


@pytest.mark.parametrize("state", ["COMPLETING", "CANCELLED", "TIMEOUT"])
def test_a_job_that_a_person_cancelled_stays_cancelled(scontrol: Scontrol, state: str) -> None:
    scontrol.behave(state=state)
    assert not request_requeue()
    assert scontrol.asked == ["show job 7 --oneliner"]


def test_a_refusal_is_told_with_slurms_reason(
    scontrol: Scontrol, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    scontrol.behave(complaint="Requested operation is presently disabled", code=1)
    monkeypatch.setattr(logging.getLogger("litgpt_core"), "propagate", True)
    with caplog.at_level(logging.WARNING):
        assert not request_requeue()
    assert "presently disabled" in caplog.text and "submit it again" in caplog.text


def test_a_machine_without_scontrol_is_no_crash(scontrol: Scontrol, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(scontrol.folder / "nothing"))
    assert not request_requeue()


def test_outside_a_job_there_is_no_id(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID"):
        monkeypatch.delenv(name, raising=False)
    assert job_id() is None
