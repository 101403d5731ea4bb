"""A training in a real queue: submitted by scripts/slurm.py, warned, put back, continued, and in the end
what it would have been undisturbed, row by row.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.serial

EXACT = [
    "+experiment=smoke",
    "trainer=deterministic",
    "trainer.max_steps=64",
    "trainer.log_interval=1",
    "trainer.eval_interval=16",
    "trainer.eval_tokens=2048",
    "trainer.save_interval=8",
    "trainer.global_batch_size=8",
    "trainer.sample_tokens=0",
    "model.dropout=0.1",
    "optim.schedule.lr_warmup_steps=5",
    "logger=none",
]
TRACE_KEYS = ("step", "tokens", "train_loss", "val_loss", "val_bpb", "lr", "grad_norm")


def trace(rows: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return [tuple(row[key] for key in TRACE_KEYS) for row in rows]


def submit(shell: Any, *arguments: str) -> tuple[str, Path]:
    """`scripts/slurm.py ... --submit`; the job's number and the file it speaks into."""
    done = shell.run(shell.command("slurm.py", *arguments, f"data.cache_dir={shell.cache}", "--submit"))
    number = re.search(r"^job (\d+) is in the queue", done.stdout)
    log = re.search(r"tail -F (\S+)", done.stdout)
    assert number and log, done.stdout
    return number[1], shell.folder / log[1]


def warn_at_checkpoint(
    cluster: Any, shell: Any, number: str, *, run: str, until: Callable[..., None], name: str
) -> int:
    """Send the warning once a checkpoint is there, and let the job return; the step of its last checkpoint."""
    folder = shell.folder / "runs" / run / "checkpoints"
    until(lambda: (folder / "step-00000008").exists(), f"a checkpoint of {run}", seconds=150)
    cluster.warn(number, name)
    cluster.let_it_return(number)
    assert not (shell.folder / "runs" / run / "final").exists()
    return max(int(path.name.removeprefix("step-")) for path in folder.glob("step-*"))


def ends_well(cluster: Any, number: str, log: Path) -> str:
    """What a job said that has run to its end."""
    ended = cluster.wait_for_state(number, "COMPLETED", "FAILED", "CANCELLED")
    assert ended["JobState"] == "COMPLETED", f"{ended}\n{log.read_text()}\n{cluster.consoles()}"
    return log.read_text()


@pytest.fixture(scope="module")
def undisturbed(cluster: Any, module_shell: Any) -> list[tuple[Any, ...]]:
    """The trace of a run on one node that nobody warned."""
    module_shell.environment |= cluster.for_shell
    number, log = submit(module_shell, *EXACT, "run.name=undisturbed", "--time=10m")
    ends_well(cluster, number, log)
    found = trace(module_shell.rows("undisturbed"))
    assert [row[0] for row in found] == list(range(1, 65))
    return found


def test_warned_and_requeued_on_one_node_equals_undisturbed(
    cluster: Any, module_shell: Any, until: Callable[..., None], undisturbed: list[tuple[Any, ...]]
) -> None:
    number, log = submit(module_shell, *EXACT, "run.name=warned", "--time=10m")
    step = warn_at_checkpoint(cluster, module_shell, number, run="warned", until=until, name="USR1")
    said = ends_well(cluster, number, log)
    assert f"stopped by SIGUSR1 after step {step}" in said
    assert f"continuing from runs/warned/checkpoints/step-{step:08d}" in said
    assert trace(module_shell.rows("warned")) == undisturbed


@pytest.mark.nightly
def test_warned_and_requeued_on_two_nodes_equals_undisturbed(
    cluster: Any, module_shell: Any, until: Callable[..., None]
) -> None:
    module_shell.environment |= cluster.for_shell
    asked = ["--nodes=2", "--tasks_per_node=1", "--time=10m"]
    number, log = submit(module_shell, *EXACT, "run.name=whole-2", *asked)
    assert "2 processes on" in ends_well(cluster, number, log)
    number, log = submit(module_shell, *EXACT, "run.name=warned-2", *asked)
    step = warn_at_checkpoint(cluster, module_shell, number, run="warned-2", until=until, name="USR1")
    assert f"stopped by SIGUSR1 after step {step}" in ends_well(cluster, number, log)
    assert trace(module_shell.rows("warned-2")) == trace(module_shell.rows("whole-2"))


@pytest.mark.nightly
def test_a_run_that_is_warned_during_its_start_returns_to_the_queue(
    cluster: Any, module_shell: Any, until: Callable[..., None]
) -> None:
    module_shell.environment |= cluster.for_shell
    number, log = submit(module_shell, *EXACT, "run.name=early", "--nodes=2", "--tasks_per_node=1")
    until(lambda: log.exists() and "read 79 documents" in log.read_text(), "the start")
    cluster.warn(number)
    until(lambda: cluster.job(number)["Restarts"] == "1", "the queue")
    cluster.run("scancel", number)
    assert "stopped by SIGUSR1 before the first step" in log.read_text()
    assert not (module_shell.folder / "runs" / "early" / "checkpoints").exists()
