"""A training in a real queue: submitted by scripts/slurm.py or submitit, warned, put back, continued, and in the end
what it would have been undisturbed, row by row.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

EXACT = [
    "+experiment=smoke",
    "trainer=deterministic",
    "trainer.max_steps=24",
    "trainer.log_interval=1",
    "trainer.eval_interval=8",
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
    """Send the warning once a checkpoint is there; returns the step of the last whole checkpoint afterwards."""
    folder = shell.folder / "runs" / run / "checkpoints"
    until(lambda: (folder / "step-00000008").exists(), f"a checkpoint of {run}", seconds=150)
    cluster.warn(number, name)
    cluster.let_it_return(number)
    assert not (shell.folder / "runs" / run / "final").exists()
    return max(int(path.name.removeprefix("step-")) for path in folder.glob("step-*"))


@pytest.mark.parametrize("asked", [["--nodes=1"], ["--nodes=2", "--tasks-per-node=1"]], ids=["one", "two-nodes"])
def test_preempted_and_requeued_equals_undisturbed(
    cluster: Any, queue_shell: Any, until: Callable[..., None], asked: list[str]
) -> None:
    names = [f"{what}-{len(asked)}" for what in ("undisturbed", "preempted")]
    whole, whole_log = submit(queue_shell, *EXACT, f"run.name={names[0]}", *asked, "--time=10m")
    cluster.wait_for_state(whole, "COMPLETED", "FAILED")
    said = whole_log.read_text()
    assert cluster.job(whole)["JobState"] == "COMPLETED", said
    assert ("2 processes on" in said) == (len(asked) == 2)

    number, log = submit(queue_shell, *EXACT, f"run.name={names[1]}", *asked, "--time=10m")
    step = warn_at_checkpoint(cluster, queue_shell, number, run=names[1], until=until, name="USR1")
    ended = cluster.wait_for_state(number, "COMPLETED", "FAILED")
    assert ended["JobState"] == "COMPLETED", f"{ended}\n{log.read_text()}\n{cluster.consoles()}"
    assert f"stopped by SIGUSR1 after step {step}" in log.read_text()
    assert trace(queue_shell.rows(names[1])) == trace(queue_shell.rows(names[0]))
    assert [row[0] for row in trace(queue_shell.rows(names[1]))] == list(range(1, 25))
