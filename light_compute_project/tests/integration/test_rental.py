"""A rental from end to end with a real training, on machines that are processes of this computer: nothing is rented.

The machine is taken away in the middle, and the laptop's process is killed in the same moment; another one goes on. The
rows are those of a run that nobody disturbed, bit for bit, and afterwards nothing is left.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from litgpt_core.core.command_line import child_command

EXACT = [
    "+experiment=smoke",
    "trainer=deterministic",
    "trainer.max_steps=150",
    "trainer.log_interval=1",
    "trainer.eval_interval=50",
    "trainer.eval_tokens=2048",
    "trainer.save_interval=1000",
    "trainer.save_every=0.5s",
    "trainer.global_batch_size=8",
    "trainer.sample_tokens=0",
    "model.dropout=0.1",
    "logger=none",
]
TRACE_KEYS = ("step", "tokens", "train_loss", "val_loss", "val_bpb", "lr", "grad_norm")
SECRET = secrets.token_hex(16)


def trace(rows: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return [tuple(row[key] for key in TRACE_KEYS) for row in rows]


def until(condition: Callable[[], bool], *, what: str, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.05)


def processes(word: str) -> list[int]:
    """Processes of this computer with a word in their command line or their folder."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            text = (entry / "cmdline").read_text(errors="replace") + str((entry / "cwd").resolve())
            dead = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()[0] in "ZX"
        except OSError:
            continue
        if word in text and not dead:
            found.append(int(entry.name))
    return found


@pytest.mark.serial
@pytest.mark.nightly
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes in /proc")
def test_a_rental_whose_machine_and_laptop_die_is_bit_equal_and_leaves_nothing(shell: Any) -> None:
    shell.train(*EXACT, "run.name=whole")
    rentals = shell.folder / "rentals"
    shell.environment |= {"LIGHT_COMPUTE_RENTALS": str(rentals), "MY_SECRET": SECRET}
    words = [*EXACT, f"data.cache_dir={shell.cache}", "run.name=r", "--engine", "local", "--budget", "20"]
    words += ["--poll", "0.3s", "--pull_every", "0.3s", "--secret", "MY_SECRET", "--dirty", "--yes"]
    log = (shell.folder / "up.log").open("wb")
    up = subprocess.Popen(
        child_command("deploy", "up", *words), cwd=shell.folder, env=shell.environment, stdout=log, stderr=log
    )
    run = shell.folder / "runs" / "r"
    until(lambda: any((run / "checkpoints").glob("step-*")) or up.poll() is not None, what="no checkpoint came home")
    assert up.poll() is None, (shell.folder / "up.log").read_text()
    [machine] = list((rentals / "machines").iterdir())
    group = int((machine / "group").read_text())
    os.kill(up.pid, signal.SIGKILL)
    os.killpg(group, signal.SIGKILL)
    up.wait()
    until(lambda: not processes(str(machine)), what="the machine still lives")
    before = max(int(path.name[5:]) for path in (run / "checkpoints").glob("step-*"))
    assert before < 150 and not (run / "final").exists()

    done = shell.run(child_command("deploy", "watch", "r"))
    assert "finished; 2 machines" in done.stdout, done.stdout + done.stderr
    assert trace(shell.rows("r")) == trace(shell.rows("whole"))
    assert shell.summary("r")["final"]["step"] == 150 and (run / "final" / "lit_model.pth").is_file()

    listed = shell.run(child_command("deploy", "ledger")).stdout
    assert "lost" not in listed and "taken away" in listed and "ended: finished" in listed and "RUNNING" not in listed
    assert "exists" not in shell.run(child_command("deploy", "down", "--all")).stdout
    until(lambda: not processes(str(rentals)) and not processes("deploy\0guard\0r-"), what="a process is left")
    texts = [path for path in [*rentals.rglob("*"), *run.rglob("*"), shell.folder / "up.log"] if path.is_file()]
    assert len(texts) > 1000 and not [path for path in texts if SECRET.encode() in path.read_bytes()]
    events = [json.loads(line)["event"] for line in (rentals / "ledger.jsonl").read_text().splitlines()]
    once = [
        event for event, before in zip(events, ["", *events], strict=False) if event != before
    ]  # the guard notes, too
    assert once == ["opened", "asked", "given", "ended", "asked", "given", "closed", "ended"]
