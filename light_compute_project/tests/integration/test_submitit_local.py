"""`hydra/launcher=submitit_local` as a user types it: stopped amid a run, it leaves nothing running, nothing lost."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import psutil
import pytest

pytestmark = pytest.mark.serial

SHORT = [
    "+experiment=smoke",
    "trainer=deterministic",
    "trainer.max_steps=16",
    "trainer.log_interval=1",
    "trainer.eval_interval=4",
    "trainer.eval_tokens=2048",
    "trainer.save_interval=4",
    "trainer.sample_tokens=0",
    "logger=none",
    "run.name=local",
    "hydra/launcher=submitit_local",
]


def alive(folder: Path) -> list[str]:
    """Command lines of processes that work in the folder."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.cwd() == str(folder) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(" ".join(process.cmdline()))
        except psutil.Error:
            continue
    return found


def test_a_stopped_launcher_has_saved_and_continues(shell: Any) -> None:
    run = shell.folder / "runs" / "local"
    done = shell.start_and_signal(
        SHORT, when=lambda: (run / "checkpoints" / "step-00000004").exists(), number=signal.SIGTERM
    )
    assert done.returncode == 143, done.stdout
    assert alive(shell.folder) == []
    assert "the same command continues" in done.stdout and not (run / "final").exists()
    saved = max(int(path.name.removeprefix("step-")) for path in (run / "checkpoints").glob("step-*"))
    assert shell.rows("local")[-1]["step"] == saved < 16
    done = shell.train(*SHORT)
    assert "local: done" in done.stderr
    assert [row["step"] for row in shell.rows("local")] == list(range(1, 17))
