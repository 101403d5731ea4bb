"""A real, short training run through the real entry point, checked from outside: what a user runs on a new machine.

Trains the smoke experiment three times in processes of their own (undisturbed, killed, resumed) and looks at what they
left. Each check yields a `CheckResult` and raises nothing.
"""

from __future__ import annotations

import json
import math
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from litgpt_core import checkpoint
from litgpt_core.core.command_line import child_command
from litgpt_core.doctor.results import CheckFailed, CheckResult, run_check

STEPS, KILLED_AFTER = 40, 20
RECIPE = (
    "+experiment=smoke",
    "trainer=deterministic",
    f"trainer.max_steps={STEPS}",
    "trainer.log_interval=1",
    f"trainer.eval_interval={KILLED_AFTER}",
    f"trainer.save_interval={KILLED_AFTER}",
    "trainer.sample_tokens=0",
    "logger=none",
)
"""Bit-exact on a CPU, because `trainer=deterministic` pins the threads; elsewhere equal to one part in a thousand."""

EXACT_KEYS = ("step", "tokens", "train_loss", "val_loss", "lr", "grad_norm")


def run_training_checks(folder: Path, *, overrides: tuple[str, ...] = ()) -> Iterator[CheckResult]:
    """Run every check in `folder`, an empty folder that the caller removes.

    Args:
        folder: Holds the runs and the prepared corpus.
        overrides: Further settings for every run, such as `trainer.accelerator=cuda`.
    """
    checks: tuple[tuple[str, Callable[[Path, tuple[str, ...]], str]], ...] = (
        ("trains from the command line", _trains),
        ("loss falls", _loss_falls),
        ("checkpoints verify and load", _checkpoints_load),
        ("killed and resumed = undisturbed", _resume_matches),
        ("generates from final/", _generates),
    )
    for name, check in checks:
        yield run_check(name, partial(check, folder, overrides))


def _trains(folder: Path, overrides: tuple[str, ...]) -> str:
    _finish(_start(folder, "undisturbed", overrides))
    summary = json.loads((folder / "runs" / "undisturbed" / "summary.json").read_text(encoding="utf-8"))
    return (
        f"{summary['n_params']:,} parameters on {summary['device']}, {summary['precision']}, {summary['wall_s']:.0f} s"
    )


def _loss_falls(folder: Path, overrides: tuple[str, ...]) -> str:
    losses = [row["train_loss"] for row in _rows(folder, "undisturbed")]
    first, last = losses[0], sum(losses[-5:]) / 5
    if not last < first - 1.0:
        raise CheckFailed(f"{first:.3f} at the first step, {last:.3f} over the last five: needed a fall of 1 nat")
    return f"{first:.3f} -> {last:.3f} nats per byte"


def _checkpoints_load(folder: Path, overrides: tuple[str, ...]) -> str:
    run = folder / "runs" / "undisturbed"
    directories = [*sorted((run / "checkpoints").iterdir()), run / "final"]
    for directory in directories:
        checkpoint.verify(directory)
        checkpoint.load_model(directory)
    return ", ".join(directory.name for directory in directories)


def _resume_matches(folder: Path, overrides: tuple[str, ...]) -> str:
    process = _start(folder, "killed", overrides)
    saved = folder / "runs" / "killed" / "checkpoints" / f"step-{KILLED_AFTER:08d}"
    while not saved.exists() and process.poll() is None:
        time.sleep(0.02)
    process.kill()
    process.communicate()
    if not saved.exists():
        raise CheckFailed(f"the run ended before its checkpoint at step {KILLED_AFTER}")
    _finish(_start(folder, "killed", (*overrides, "run.resume=true")))
    environment = json.loads((folder / "runs" / "killed" / "environment.json").read_text(encoding="utf-8"))
    exact = environment["device"] == "cpu"
    expected, found = (_rows(folder, name) for name in ("undisturbed", "killed"))
    for a, b in zip(expected, found, strict=False):
        for key in EXACT_KEYS:
            if not _equal(a[key], b[key], exact=exact):
                raise CheckFailed(f"step {a['step']}: {key} is {b[key]} after the resume, {a[key]} undisturbed")
    if len(expected) != len(found):
        raise CheckFailed(f"{len(found)} rows of metrics after the resume, {len(expected)} undisturbed")
    how = "bit by bit" if exact else "to one part in a thousand"
    return f"{len(expected)} steps equal {how}, killed after step {KILLED_AFTER}"


def _equal(a: float | None, b: float | None, *, exact: bool) -> bool:
    if exact or a is None or b is None:
        return a == b
    return math.isclose(a, b, rel_tol=1e-3)


def _generates(folder: Path, overrides: tuple[str, ...]) -> str:
    command = child_command("generate", "runs/undisturbed/final", "--prompt", "import ", "--max_new_tokens", "40")
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, encoding="utf-8", check=False)
    if done.returncode or not done.stdout.startswith("import "):
        raise CheckFailed(f"lcp generate ended with {done.returncode}: {done.stderr.strip()[-300:]}")
    return repr(done.stdout.strip()[:60])


def _start(folder: Path, name: str, overrides: tuple[str, ...]) -> subprocess.Popen[str]:
    settings = [*RECIPE, f"run.name={name}", f"data.cache_dir={folder.resolve().as_posix()}/data", *overrides]
    command = child_command("train", *settings)
    return subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, encoding="utf-8"
    )


def _finish(process: subprocess.Popen[str]) -> None:
    output, _ = process.communicate()
    if process.returncode:
        raise CheckFailed(f"lcp train ended with {process.returncode}: {output.strip()[-500:]}")


def _rows(folder: Path, name: str) -> list[dict[str, Any]]:
    lines = (folder / "runs" / name / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]
