"""Ours in the training race: `scripts/train.py` as a user types it, with Lightning, its logger and its checkpoints."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.race import Contestant, Reading, steady_seconds
from benchmarks.workload import Workload
from litgpt_core.core.errors import ConfigError, EnvironmentProblem
from litgpt_core.core.machine import PROJECT_DIR
from litgpt_core.core.rates import number_kind

RUN = "run"
ROWS_PER_LAP = 20
"""At least so many rows of metrics in a lap, as far as it has steps."""


def ours(workload: Workload, *, label: str = "ours", overrides: Sequence[str] = ()) -> Contestant:
    """Our own training.

    Args:
        workload: The work.
        label: Its name in the race.
        overrides: What this variant changes for itself alone, such as `trainer.precision=32-true`.
    """
    interval = max(1, min(10, workload.steps // ROWS_PER_LAP))

    def command(folder: Path) -> list[str]:
        return [
            sys.executable,
            str(PROJECT_DIR / "scripts" / "train.py"),
            *workload.arguments,
            f"trainer.max_steps={workload.steps}",
            f"trainer.log_interval={interval}",
            f"trainer.threads={workload.threads}",
            f"trainer.accelerator={workload.device}",
            f"run.name={RUN}",
            "run.dir=runs",
            *overrides,
        ]

    def read(folder: Path, output: str) -> Reading:
        return read_run(folder / "runs" / RUN, tokens_per_step=workload.tokens_per_step, name=label)

    changed = " ".join(overrides) or "as shipped"
    return Contestant(
        label=label, ours=True, describes=f"scripts/train.py +experiment=bench_*, {changed}", command=command, read=read
    )


def read_run(run: Path, *, tokens_per_step: int, name: str) -> Reading:
    """The step times of a run folder, from the rates of its rows, and what its summary says.

    A row's rate covers its whole interval: data, logging and Lightning's own work, but not validation and saving.

    Raises:
        EnvironmentProblem: The run left no summary or too few rows.
    """
    try:
        summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
        lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise EnvironmentProblem(f"{name} left no readable run folder: {error}") from None
    rates = [rate for line in lines if (rate := json.loads(line)["tokens_per_s"])]
    seconds = [tokens_per_step / rate for rate in rates]
    numbers = {"compile_s": summary["compile_s"], "train_loss": summary["final"]["train_loss"]}
    if not summary["device"].endswith("threads"):
        numbers["device_mb"] = summary["peak_memory_mb"]
    return Reading(
        tokens_per_s=tokens_per_step / steady_seconds(seconds, name=name),
        precision=number_kind(summary["precision"]),
        numbers=numbers,
        raw=seconds,
    )


def parse_variant(text: str) -> tuple[str, list[str]]:
    """`label=override override ...` of --ours.

    Raises:
        ConfigError: There is no label, or no override behind it.
    """
    label, _, rest = text.partition("=")
    overrides = rest.split()
    if not label.strip() or not overrides or not label.replace("-", "").replace("_", "").isalnum():
        raise ConfigError(
            f"--ours {text!r}",
            needed="a label, '=', and overrides of train.py",
            fix='--ours "fp32=trainer.precision=32-true trainer.compile=false"',
        )
    return label.strip(), overrides
