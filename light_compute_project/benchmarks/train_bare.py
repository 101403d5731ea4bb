"""Ours without Lightning in the training race: the same model, data, compiler and optimizer in a plain loop.

What `ours` is slower than this is what the Trainer, logging and our own hooks cost.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.child import child_command, child_result
from benchmarks.race import Contestant, Reading, steady_seconds
from benchmarks.workload import Workload
from litgpt_core.core.rates import number_kind


def bare(workload: Workload, *, label: str) -> Contestant:
    """A plain loop around our `TrainingModule`."""
    job = {
        "overrides": [
            *workload.arguments,
            f"trainer.max_steps={workload.steps}",
            f"trainer.threads={workload.threads}",
            f"trainer.accelerator={workload.device}",
            f"run.name={label}",
            "run.dir=runs",
        ],
    }

    def command(folder: Path) -> list[str]:
        return child_command("child_bare_loop", job, folder=folder)

    def read(folder: Path, output: str) -> Reading:
        result = child_result(folder, name=label)
        seconds: list[float] = result["seconds"]
        return Reading(
            tokens_per_s=workload.tokens_per_step / steady_seconds(seconds, name=label),
            precision=number_kind(result["precision"]),
            numbers={"train_loss": result["train_loss"]},
            raw=seconds,
        )

    return Contestant(
        label=label, ours=False, describes="our model, data and optimizer in a plain loop", command=command, read=read
    )
