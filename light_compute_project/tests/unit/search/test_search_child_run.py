"""A child hears of the end once, tells how it ended, and is found again by the command after a kill."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from litgpt_core.core import child_process
from litgpt_core.core.child_process import StopSignals
from litgpt_core.search.child_run import ChildRun, end_left_over, write_claim

pytestmark = [pytest.mark.skipif(sys.platform == "win32", reason="signals as POSIX has them"), pytest.mark.serial]

DEAF = """
import signal, subprocess, sys, time
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda n, f: print("heard", n, flush=True))
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print("ready", child.pid, flush=True)
while True:
    time.sleep(0.05)
"""


def start(folder: Path, code: str) -> ChildRun:
    return ChildRun([sys.executable, "-c", code], name="x", folder=folder, output=folder / "output")


def wait_for_line(folder: Path, text: str) -> list[str]:
    """The whole lines of the output once they hold the text: a line may arrive in parts."""
    deadline = time.monotonic() + 60
    while text not in (said := "".join((folder / "output").read_text().rpartition("\n")[:2])):
        assert time.monotonic() < deadline, said
        time.sleep(0.01)
    return said.splitlines()


def is_gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_how_it_ended_is_read_from_its_report(tmp_path: Path) -> None:
    code = "from litgpt_core.core.console import run_script\nfrom litgpt_core.core.errors import Diverged\n"
    ending = start(tmp_path, code + "def main(): raise Diverged('nan', fix='less')\nrun_script(main)").wait()
    assert (ending.exit_code, ending.kind, ending.message) == (2, "Diverged", "nan\n  try:    less")
    assert ending.diverged and not ending.stopped
    plain = start(tmp_path, "raise RuntimeError('a bug')").wait()
    assert (plain.exit_code, plain.kind) == (1, "") and not plain.diverged, "no report of the run before is left"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["output"]


def test_a_death_by_signal_counts_as_shells_count(tmp_path: Path) -> None:
    assert start(tmp_path, "import os; os.kill(os.getpid(), 9)").wait().exit_code == 137
    ending = start(tmp_path, "import os; os.kill(os.getpid(), 15)").wait()
    assert ending.exit_code == 143 and ending.stopped


def test_runs_do_not_put_their_sweeps_job_back_into_the_queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIGHT_COMPUTE_REQUEUE", "1")
    start(tmp_path, "import os; print('LIGHT_COMPUTE_REQUEUE' in os.environ)").wait()
    assert (tmp_path / "output").read_text() == "False\n"


def test_ctrl_c_is_passed_on_each_time_and_the_third_kills_all_of_it(tmp_path: Path) -> None:
    child = start(tmp_path, DEAF)
    grandchild = int(wait_for_line(tmp_path, "ready")[0].split()[1])
    with StopSignals() as signals:
        for number in (1, 2):
            signal.raise_signal(signal.SIGINT)
            child.forward(signals)
            child.forward(signals)
            assert wait_for_line(tmp_path, "heard 2\n" * number).count("heard 2") == number and child.poll() is None
        signal.raise_signal(signal.SIGINT)
        child.forward(signals)
    ending = child.wait()
    assert ending.exit_code == 137 and ending.stopped and signals.exit_code == 130
    deadline = time.monotonic() + 10
    while not is_gone(grandchild):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_other_signals_become_one_sigterm(tmp_path: Path) -> None:
    child = start(tmp_path, DEAF)
    wait_for_line(tmp_path, "ready")
    with StopSignals() as signals:
        for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGHUP, signal.SIGTERM):
            signal.raise_signal(number)
            child.forward(signals)
        assert signals.received == signal.SIGUSR1 and signals.exit_code == 143
    assert wait_for_line(tmp_path, "heard").count("heard 15") == 1 and child.poll() is None
    child.kill()
    child.wait()


def test_what_does_not_stop_in_time_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child_process, "GRACE_S", 0.3)
    child = start(tmp_path, DEAF)
    wait_for_line(tmp_path, "ready")
    child.stop()
    ending = child.wait()
    assert ending.exit_code == 137 and ending.stopped, "it got the signal, so that is no failure of its own"


def test_a_child_of_a_killed_command_is_ended_and_a_stranger_is_not(tmp_path: Path) -> None:
    sleeper = [sys.executable, "-c", "import time; time.sleep(60)"]
    left, stranger = (subprocess.Popen(sleeper) for _ in range(2))
    write_claim(tmp_path / ".running-left.json", left.pid)
    reused = {"pid": stranger.pid, "created": psutil.Process(stranger.pid).create_time() - 5}
    (tmp_path / ".running-reused.json").write_text(json.dumps(reused))
    (tmp_path / ".running-incomplete.json").write_text('{"pid": ')
    (tmp_path / ".ending-left.json").write_text("{}")
    try:
        end_left_over(tmp_path)
        assert left.wait(10) == -signal.SIGTERM and stranger.poll() is None
        assert not list(tmp_path.iterdir())
    finally:
        for process in (left, stranger):
            process.kill()
            process.wait()
