"""LitGPT in the training race: its own `litgpt pretrain`, on a config equal in shape and on our corpus.

LitGPT has no learned positions: it computes rope instead, 2 % more work or less. It always compiles. What its progress
lines call `iter time` leaves out fetching the batch and logging, to its advantage.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

import yaml

from benchmarks.race import Contestant, Reading, steady_seconds
from benchmarks.workload import Workload
from litgpt_core.core.machine import PROJECT_DIR

EVAL_BATCHES = 20
_STEP = re.compile(r"iter (\d+) step (\d+) \| loss train: ([\d.naif]+),.*?iter time: ([\d.]+) ms( \(step\))?")


def litgpt(workload: Workload, *, label: str, precision: str) -> Contestant:
    """`litgpt pretrain`.

    Args:
        workload: The work.
        label: Its name in the race.
        precision: Its `--precision`: 32-true, bf16-mixed or bf16-true.
    """

    def command(folder: Path) -> list[str]:
        path = folder / "pretrain.yaml"
        path.write_text(yaml.safe_dump(settings(workload, precision=precision), sort_keys=False), encoding="utf-8")
        return [sys.executable, "-m", "litgpt", "pretrain", "--config", path.name]

    def read(folder: Path, output: str) -> Reading:
        seconds = read_steps(output)
        return Reading(
            tokens_per_s=workload.tokens_per_step / steady_seconds(seconds, name=label),
            precision="fp32" if precision == "32-true" else "bf16",
            numbers={"train_loss": read_losses(output)[-1]},
            raw=seconds,
        )

    return Contestant(
        label=label,
        ours=False,
        describes=f"litgpt pretrain, {precision}, compiled, rope instead of learned positions",
        command=command,
        read=read,
        environment={"PYTHONPATH": os.pathsep.join(filter(None, [str(PROJECT_DIR), os.environ.get("PYTHONPATH")]))},
    )


def settings(workload: Workload, *, precision: str) -> dict[str, Any]:
    """The file for its --config."""
    model = workload.model
    return {
        "model_name": "benchmark",
        "model_config": {
            "name": "benchmark",
            "block_size": model.block_size,
            "vocab_size": model.padded_vocab_size,
            "padded_vocab_size": model.padded_vocab_size,
            **{name: getattr(model, name) for name in _SHARED_FIELDS},
            "rotary_percentage": 1.0,
        },
        "out_dir": "out",
        "precision": precision,
        "data": {
            "class_path": "benchmarks.peer_litgpt.TokenShards",
            "init_args": {"folder": str(workload.corpus)},
        },
        "train": {
            "save_interval": None,
            "log_interval": 1,
            "global_batch_size": workload.batch_size,
            "micro_batch_size": workload.micro_batch_size,
            "max_tokens": workload.steps * workload.tokens_per_step,
            "max_norm": workload.max_norm,
            "min_lr": workload.lr / 10,
            "lr_warmup_steps": min(100, workload.steps // 2),
            "tie_embeddings": model.tie_embeddings,
        },
        "eval": {"interval": workload.steps + 1, "max_iters": EVAL_BATCHES, "initial_validation": False},
        "optimizer": {
            "class_path": "torch.optim.AdamW",
            "init_args": {
                "lr": workload.lr,
                "betas": list(workload.betas),
                "weight_decay": workload.weight_decay,
            },
        },
        "devices": 1,
        "logger_name": "csv",
        "seed": 1337,
    }


_SHARED_FIELDS = (
    "n_layer",
    "n_head",
    "n_embd",
    "n_query_groups",
    "intermediate_size",
    "bias",
    "norm_class_name",
    "mlp_class_name",
    "parallel_residual",
)


def read_steps(output: str) -> list[float]:
    """Seconds of each optimizer step: its micro-batches' `iter time` added up."""
    steps: dict[int, float] = {}
    waiting = 0.0
    for match in _STEP.finditer(output):
        waiting += float(match[4]) / 1000
        if match[5]:
            steps[int(match[2])] = waiting
            waiting = 0.0
    return list(steps.values())


def read_losses(output: str) -> list[float]:
    """The training loss of each progress line, nats per token."""
    return [float(match[3]) for match in _STEP.finditer(output)]
