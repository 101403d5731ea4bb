"""LitGPT: its own commands, `litgpt pretrain` on our corpus and `litgpt generate` on the checkpoint that ours reads.

In training it has no learned positions and computes rope instead, about 2 % more or less work, and it always compiles.
The `iter time` of its progress lines leaves out fetching the batch and logging, to its advantage.
"""

from __future__ import annotations

import os
import re
import statistics
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from benchmarks.runner import Measurement, RunSpec, training_measurement
from litgpt_core.core.checkout import PROJECT_DIR
from litgpt_core.core.errors import EnvironmentProblem

if TYPE_CHECKING:
    from benchmarks.generating import GenerateWork
    from benchmarks.training import TrainWork

EVAL_BATCHES = 20
_STEP = re.compile(r"iter (\d+) step (\d+) \| loss train: ([\d.naif]+),.*?iter time: ([\d.]+) ms( \(step\))?")
_INFERENCE = re.compile(r"Time for inference \d+: ([\d.]+) sec total, ([\d.]+) tokens/sec")
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


def train(work: TrainWork, *, label: str, precision: str) -> RunSpec:
    """`litgpt pretrain`; `precision` is its `--precision`: 32-true, bf16-mixed or bf16-true."""

    def command(folder: Path) -> list[str]:
        path = folder / "pretrain.yaml"
        path.write_text(yaml.safe_dump(settings(work, precision=precision), sort_keys=False), encoding="utf-8")
        return [sys.executable, "-P", "-m", "litgpt", "pretrain", "--config", path.name]

    def read(folder: Path, output: str) -> Measurement:
        return training_measurement(
            read_steps(output),
            tokens_per_step=work.tokens_per_step,
            precision=_number_type(precision),
            name=label,
            numbers={"train_loss": read_losses(output)[-1]},
        )

    return RunSpec(
        label=label,
        describes=f"litgpt pretrain, {precision}, compiled, rope instead of learned positions",
        command=command,
        read=read,
        environment={"PYTHONPATH": os.pathsep.join(filter(None, [str(PROJECT_DIR), os.environ.get("PYTHONPATH")]))},
    )


def settings(work: TrainWork, *, precision: str) -> dict[str, Any]:
    """The content of the file for its --config."""
    model = work.model
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
            "class_path": "benchmarks.children.litgpt_data.TokenShards",
            "init_args": {"folder": str(work.corpus)},
        },
        "train": {
            "save_interval": None,
            "log_interval": 1,
            "global_batch_size": work.batch_size,
            "micro_batch_size": work.micro_batch_size,
            "max_tokens": work.steps * work.tokens_per_step,
            "max_norm": work.max_norm,
            "min_lr": work.lr / 10,
            "lr_warmup_steps": min(100, work.steps // 2),
            "tie_embeddings": model.tie_embeddings,
        },
        "eval": {"interval": work.steps + 1, "max_iters": EVAL_BATCHES, "initial_validation": False},
        "optimizer": {
            "class_path": "torch.optim.AdamW",
            "init_args": {"lr": work.lr, "betas": list(work.betas), "weight_decay": work.weight_decay},
        },
        "devices": 1,
        "logger_name": "csv",
        "seed": 1337,
    }


def read_steps(output: str) -> list[float]:
    """Seconds of each optimizer step: the sum of its micro-batches' `iter time`."""
    steps: dict[int, float] = {}
    seconds = 0.0
    for match in _STEP.finditer(output):
        seconds += float(match[4]) / 1000
        if match[5]:
            steps[int(match[2])] = seconds
            seconds = 0.0
    return list(steps.values())


def read_losses(output: str) -> list[float]:
    """The training loss of each progress line, nats per token."""
    return [float(match[3]) for match in _STEP.finditer(output)]


def generate(work: GenerateWork, *, label: str, precision: str, compiled: bool = False) -> RunSpec:
    """`litgpt generate`.

    Args:
        work: What is generated.
        label: Name in tables.
        precision: Its `--precision`.
        compiled: Its `--compile`.
    """

    def command(folder: Path) -> list[str]:
        return [
            sys.executable, "-P", "-m", "litgpt", "generate", str(work.checkpoint),
            "--prompt", work.made["prompt"],
            "--num_samples", str(work.repeats + 1),
            "--max_new_tokens", str(work.new_tokens),
            "--temperature", "0.0",
            "--precision", precision,
            "--compile", str(compiled).lower(),
        ]  # fmt: skip

    def read(folder: Path, output: str) -> Measurement:
        return read_generations(output, new_tokens=work.new_tokens, precision=precision, name=label)

    how = ", --compile true" if compiled else ""
    return RunSpec(label=label, describes=f"litgpt generate, {precision}{how}", command=command, read=read)


def read_generations(output: str, *, new_tokens: int, precision: str, name: str) -> Measurement:
    """The lines `Time for inference 2: 0.41 sec total, 487.80 tokens/sec`; the first generation warms up.

    Raises:
        EnvironmentProblem: There are fewer than two, or a generation stopped early.
    """
    found = [(float(seconds), float(rate)) for seconds, rate in _INFERENCE.findall(output)]
    if len(found) < 2:
        raise EnvironmentProblem(
            f"{name} printed the times of {len(found)} generations", needed="at least 2", fix="--repeats 2"
        )
    for seconds, rate in found:
        if abs(seconds * rate - new_tokens) > 0.01 * rate + 1:  # seconds are printed with two decimals
            raise EnvironmentProblem(
                f"{name} generated about {seconds * rate:.0f} tokens", needed=f"{new_tokens}: no end-of-document token"
            )
    rates = [rate for _, rate in found[1:]]
    return Measurement(
        tokens_per_s=statistics.median(rates),
        precision=_number_type(precision),
        numbers={"warm_up_s": found[0][0]},
        raw=[new_tokens / rate for rate in rates],
    )


def _number_type(precision: str) -> str:
    return "fp32" if precision == "32-true" else "bf16"
