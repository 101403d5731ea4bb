"""A real grid that is killed and typed again, and a real study that gives a hopeless trial up."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

pytestmark = pytest.mark.serial

FIXED = [
    "+experiment=smoke",
    "logger=none",
    "trainer.max_steps=200",
    "trainer.global_batch_size=4",
    "trainer.eval_interval=20",
    "trainer.eval_tokens=2048",
    "trainer.save_interval=20",
    "trainer.log_interval=20",
    "trainer.sample_tokens=0",
]


def read(path: Path) -> dict[str, Any]:
    content = json.loads(path.read_text(encoding="utf-8"))
    assert isinstance(content, dict)
    return content


def wait_until_gone(process: psutil.Process) -> None:
    deadline = time.monotonic() + 60
    while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, "a child outlived its sweep"
        time.sleep(0.05)


@pytest.mark.skipif(
    not hasattr(signal, "SIGKILL") or not Path("/proc").is_dir(), reason="Linux tells of a parent's end"
)
@pytest.mark.nightly
def test_a_grid_that_is_killed_goes_on_where_it_was(shell: Any) -> None:
    command = shell.train_command("-m", *FIXED, "run.name=g", "optim.lr=1e-3,5e-3")
    runs = shell.folder / "runs"
    process = subprocess.Popen(command, cwd=shell.folder, env=shell.environment, stdout=-3, stderr=-3)
    deadline = time.monotonic() + 200
    while not (runs / "g-lr_0.005" / "checkpoints" / "last").exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    [child] = psutil.Process(process.pid).children()
    process.kill()
    process.wait()
    wait_until_gone(child)
    assert not (runs / "g-lr_0.005" / "final").exists(), "it was in the middle"
    first = (runs / "g-lr_0.001" / "summary.json").stat().st_mtime_ns

    done = shell.run(command)
    assert "2 of 2 runs done" in done.stdout and "continuing" in (done.stdout + done.stderr).lower()
    record = read(runs / "g-sweep" / "sweep.json")
    assert [(run["state"], run["sessions"]) for run in record["runs"]] == [("done", 1), ("done", 2)]
    assert (runs / "g-lr_0.001" / "summary.json").stat().st_mtime_ns == first, "what was done is left alone"
    assert [row["step"] for row in shell.rows("g-lr_0.005")] == list(range(20, 201, 20))
    losses = [shell.summary(name)["whole_split"]["val_loss"] for name in ("g-lr_0.001", "g-lr_0.005")]
    assert [run["result"]["val_loss"] for run in record["runs"]] == losses and record["best"]["val_loss"] == min(losses)
    assert (runs / "g-sweep" / "sweep.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.nightly
def test_a_study_gives_a_hopeless_trial_up_and_keeps_the_best(shell: Any) -> None:
    words = [*FIXED, f"data.cache_dir={shell.cache}", "run.name=s", "seed=1", "optim.lr=5e-3,1e-6"]
    command = shell.command("study.py", *words, "--sampler", "grid", "--startup", "1")
    shell.run(command)
    study = shell.folder / "runs" / "s-study"
    content = read(study / "study.json")
    good, bad = content["trials"]
    assert (good["state"], good["params"]) == ("done", {"optim.lr": "0.005"})
    assert (bad["state"], list(bad["validations"])) == ("pruned", ["20"])
    assert good["value"] == read(study / "s-study-000" / "summary.json")["whole_split"]["val_loss"]
    assert bad["value"] > good["validations"]["20"]
    saved = [int(path.name[5:]) for path in (study / "s-study-001" / "checkpoints").glob("step-*")]
    assert saved and max(saved) < 200 and not (study / "s-study-001" / "final").exists()
    assert (study / "study.png").read_bytes().startswith(b"\x89PNG")
    again = shell.run(command)
    assert read(study / "study.json")["trials"] == content["trials"] and "trial 0" not in again.stderr
