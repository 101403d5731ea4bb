"""This project: `scripts/train.py` with Lightning, its logger and its checkpoints; `bare`, without them; the engine."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.child import child_spec, read_generations
from benchmarks.runner import Measurement, RunSpec, training_measurement
from benchmarks.server_process import ServerSpec
from litgpt_core.core.checkout import PROJECT_DIR
from litgpt_core.core.errors import ConfigError, EnvironmentProblem
from litgpt_core.core.rates import number_kind

if TYPE_CHECKING:
    from benchmarks.generating import GenerateWork
    from benchmarks.training import TrainWork

TRAIN = str(PROJECT_DIR / "scripts" / "train.py")
SERVE = str(PROJECT_DIR / "scripts" / "serve.py")
RUN = "run"
ROWS_PER_TRIAL = 20
"""A trial has at least this many rows of metrics, if it has as many steps."""


def train(work: TrainWork, *, label: str = "ours", overrides: Sequence[str] = ()) -> RunSpec:
    """Our training.

    Args:
        work: What is trained.
        label: Name in tables.
        overrides: Settings of this variant alone, such as `trainer.precision=32-true`.
    """
    interval = max(1, min(10, work.steps // ROWS_PER_TRIAL))

    def command(folder: Path) -> list[str]:
        return [
            sys.executable,
            TRAIN,
            *work.arguments,
            f"trainer.max_steps={work.steps}",
            f"trainer.log_interval={interval}",
            f"trainer.threads={work.threads}",
            f"trainer.accelerator={work.device}",
            f"run.name={RUN}",
            "run.dir=runs",
            *overrides,
        ]

    def read(folder: Path, output: str) -> Measurement:
        return read_run(folder / "runs" / RUN, tokens_per_step=work.tokens_per_step, name=label)

    changed = " ".join(overrides) or "as shipped"
    describes = f"scripts/train.py +experiment=bench_*, {changed}"
    return RunSpec(label=label, ours=True, describes=describes, command=command, read=read)


def read_run(run: Path, *, tokens_per_step: int, name: str) -> Measurement:
    """The step times of a run folder, from the rates of its rows, and numbers of its summary.

    A row's rate covers its whole interval: data, logging and Lightning's own work, but not validation and saving.

    Raises:
        EnvironmentProblem: The run left no summary or too few rows.
    """
    summary, rows = read_run_folder(run, name=name)
    numbers = {"compile_s": summary["compile_s"], "train_loss": summary["final"]["train_loss"]}
    if not summary["device"].endswith(("thread", "threads")):
        numbers["device_mb"] = summary["peak_memory_mb"]
    return training_measurement(
        [tokens_per_step / rate for row in rows if (rate := row["tokens_per_s"])],
        tokens_per_step=tokens_per_step,
        precision=number_kind(summary["precision"]),
        name=name,
        numbers=numbers,
    )


def read_run_folder(run: Path, *, name: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """`summary.json` and the rows of `metrics.jsonl`.

    Raises:
        EnvironmentProblem: The folder is not that of a finished run.
    """
    try:
        summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise EnvironmentProblem(f"{name} left no readable run folder: {error}") from None
    return summary, rows


def parse_variant(text: str) -> tuple[str, list[str]]:
    """`label=override override ...` of --ours.

    Raises:
        ConfigError: The label or the overrides are missing.
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


def bare(work: TrainWork, *, label: str) -> RunSpec:
    """The same model, data, compiler and optimizer in a plain loop.

    The difference to `ours` is what Lightning's Trainer, logging and our hooks cost.
    """
    overrides = [
        *work.arguments,
        f"trainer.max_steps={work.steps}",
        f"trainer.threads={work.threads}",
        f"trainer.accelerator={work.device}",
        f"run.name={label}",
        "run.dir=runs",
    ]

    def read(result: dict[str, Any]) -> Measurement:
        return training_measurement(
            result["seconds"],
            tokens_per_step=work.tokens_per_step,
            precision=number_kind(result["precision"]),
            name=label,
            numbers={"train_loss": result["train_loss"]},
        )

    describes = "our model, data and optimizer in a plain loop"
    return child_spec("bare_loop:train", {"overrides": overrides}, label=label, describes=describes, read=read)


def generate(work: GenerateWork, *, label: str, dtype: str, batch: int = 1) -> RunSpec:
    """Our engine.

    What it compiles and caches goes into the benchmark's folder, so that it starts cold in the first round.

    Args:
        work: What is generated.
        label: Name in tables.
        dtype: As generate.py's --precision.
        batch: Sequences generated together.
    """
    precision = {"32": "fp32", "16": "fp16"}.get(dtype, dtype)
    return child_spec(
        "ours:generate",
        {**work.job(), "dtype": dtype, "batch": batch},
        label=label,
        ours=True,
        describes=f"generation.Engine, --precision {dtype}, batch {batch}",
        read=partial(read_generations, precision=precision, name=label),
        environment={"XDG_CACHE_HOME": str(work.cache)},
    )


def serve(work: GenerateWork, *, label: str, slots: int) -> ServerSpec:
    """Our server, in bfloat16."""

    def command(folder: Path, port: int) -> list[str]:
        machine = ["--device", work.device, "--precision", "bf16", "--slots", str(slots), "--port", str(port)]
        limits = ["--max_tokens", str(work.new_tokens), "--max_new_tokens", "1", "--no_chat_log"]
        return [sys.executable, SERVE, str(work.checkpoint), *machine, *limits]

    describes = f"scripts/serve.py, --precision bf16, {slots} slots"
    return ServerSpec(label=label, ours=True, describes=describes, command=command)
