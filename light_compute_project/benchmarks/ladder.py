"""`benchmark.py ladder`: the shapes that are meant for a GPU, each a training race of its own.

    124m   GPT-2's smallest, context 1024     against nanoGPT's loop, compiled, where its folder is named
    1b     Llama 3.2's smallest, context 2048 alone, or against LitGPT

MFU is by the model's own cost count against the data sheet's dense bf16 rate.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.training import TrainRace, run_training_race
from litgpt_core.core.errors import EnvironmentProblem

RUNGS = ("124m", "1b")
"""Experiments bench_gpu_<rung>."""
_PROBE = "import torch; print(torch.cuda.get_device_name() if torch.cuda.is_available() else '')"


def check_gpu() -> str:
    """The GPU's name, looked up in a process of its own.

    Raises:
        EnvironmentProblem: torch sees none.
    """
    done = subprocess.run([sys.executable, "-c", _PROBE], capture_output=True, text=True, timeout=120, check=False)
    name = done.stdout.strip()
    if not name:
        raise EnvironmentProblem(
            "ladder: torch sees no CUDA device here",
            needed="an NVIDIA GPU with about 80 GB and torch built for CUDA, to train 124M and 1.2B parameters",
            fix="this command on such a machine; on a CPU: benchmark.py train --shape small",
        )
    return name


def run_ladder(
    rungs: Sequence[str],
    *,
    nanogpt_dir: Path | None,
    litgpt: bool,
    rounds: int,
    steps: int | None,
    variants: tuple[str, ...],
    lap_timeout_s: float,
    folder: Path,
    command: str,
) -> list[dict[str, Any]]:
    """Race on each rung; one record each.

    Args:
        rungs: Of `RUNGS`.
        nanogpt_dir: The user's copy, raced against on the GPT-2 shape; None leaves it out.
        litgpt: Race against `litgpt pretrain` in bf16-mixed too.
        rounds: Laps of each contestant.
        steps: Optimizer steps of a lap; None takes the experiment's.
        variants: Further contestants of ours, `label=override override`.
        lap_timeout_s: Seconds for one lap.
        folder: An empty folder that the caller removes.
        command: What was typed.

    Raises:
        EnvironmentProblem: There is no GPU, or a lap failed.
    """
    check_gpu()
    records = []
    for rung in rungs:
        against = ("nanogpt-compiled",) if nanogpt_dir is not None and rung == "124m" else ()
        race = TrainRace(
            against=(*against, *(("litgpt-bf16",) if litgpt else ())),
            shape=f"gpu_{rung}",
            variants=variants,
            nanogpt_dir=nanogpt_dir,
            rounds=rounds,
            steps=steps,
            device="cuda",
            lap_timeout_s=lap_timeout_s,
        )
        records.append(run_training_race(race, folder=folder / rung, command=command))
    return records
