"""Hugging Face in the training race: transformers' GPT2LMHeadModel under its Trainer, in a module of ours.

There is no command of theirs for this, so `peer_hf_train` calls their Trainer. Their GPT-2 always has biases. A step's
time is the clock between two ends of a step, so it holds everything the Trainer does.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.child import child_command, child_result
from benchmarks.race import Contestant, Reading, steady_seconds
from benchmarks.workload import Workload
from litgpt_core.core.errors import EnvironmentProblem


def hf(workload: Workload, *, label: str, bf16: bool, compiled: bool = False) -> Contestant:
    """transformers' Trainer.

    Args:
        workload: The work.
        label: Its name in the race.
        bf16: Its `bf16=True`, autocast.
        compiled: Its `torch_compile=True`.
    """
    model = workload.model
    job = {
        "corpus": str(workload.corpus / "train.bin"),
        "vocabulary": model.padded_vocab_size,
        "n_layer": model.n_layer,
        "n_head": model.n_head,
        "n_embd": model.n_embd,
        "block_size": model.block_size,
        "batch_size": workload.micro_batch_size,
        "accumulate": workload.batch_size // workload.micro_batch_size,
        "steps": workload.steps,
        "lr": workload.lr,
        "betas": list(workload.betas),
        "weight_decay": workload.weight_decay,
        "max_norm": workload.max_norm,
        "cpu": workload.device == "cpu",
        "bf16": bf16,
        "compile": compiled,
    }

    def command(folder: Path) -> list[str]:
        return child_command("peer_hf_train", job, folder=folder)

    def read(folder: Path, output: str) -> Reading:
        result = child_result(folder, name=label)
        return read_result(result, tokens_per_step=workload.tokens_per_step, bf16=bf16, name=label)

    how = ("bf16 autocast" if bf16 else "fp32") + (", torch_compile" if compiled else "")
    return Contestant(
        label=label, ours=False, describes=f"GPT2LMHeadModel + Trainer, {how}, with biases", command=command, read=read
    )


def read_result(result: dict[str, Any], *, tokens_per_step: int, bf16: bool, name: str) -> Reading:
    """What the child wrote: `seconds`, one number a step, and `train_loss`.

    Raises:
        EnvironmentProblem: A number is missing.
    """
    try:
        seconds, loss = [float(s) for s in result["seconds"]], float(result["train_loss"])
    except (KeyError, TypeError, ValueError) as error:
        raise EnvironmentProblem(f"{name} left an incomplete result: {error!r}") from None
    return Reading(
        tokens_per_s=tokens_per_step / steady_seconds(seconds, name=name),
        precision="bf16" if bf16 else "fp32",
        numbers={"train_loss": loss},
        raw=seconds,
    )
