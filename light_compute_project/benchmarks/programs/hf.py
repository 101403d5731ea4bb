"""Hugging Face transformers: GPT2LMHeadModel with its Trainer and its `generate`."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from benchmarks.child import child_spec, read_generations
from benchmarks.runner import Measurement, RunSpec, training_measurement
from litgpt_core.core.errors import EnvironmentProblem

if TYPE_CHECKING:
    from benchmarks.generating import GenerateWork
    from benchmarks.training import TrainWork


def train(work: TrainWork, *, label: str, bf16: bool, compiled: bool = False) -> RunSpec:
    """The Trainer.

    Args:
        work: What is trained.
        label: Name in tables.
        bf16: Its `bf16=True`, autocast.
        compiled: Its `torch_compile=True`.
    """
    job = {
        **work.facts(),
        "ids": str(work.corpus / "train.bin"),
        "lr": work.lr,
        "betas": work.betas,
        "weight_decay": work.weight_decay,
        "max_norm": work.max_norm,
        "bf16": bf16,
        "compile": compiled,
    }

    def read(result: dict[str, Any]) -> Measurement:
        return read_training(result, tokens_per_step=work.tokens_per_step, bf16=bf16, name=label)

    how = ("bf16 autocast" if bf16 else "fp32") + (", torch_compile" if compiled else "")
    describes = f"GPT2LMHeadModel + Trainer, {how}, with biases"
    return child_spec("hf:train", job, label=label, describes=describes, read=read)


def read_training(result: dict[str, Any], *, tokens_per_step: int, bf16: bool, name: str) -> Measurement:
    """The child's result: `seconds`, one number a step, and `train_loss`.

    Raises:
        EnvironmentProblem: A number is missing.
    """
    try:
        seconds, loss = [float(s) for s in result["seconds"]], float(result["train_loss"])
    except (KeyError, TypeError, ValueError) as error:
        raise EnvironmentProblem(f"{name} left an incomplete result: {error!r}") from None
    return training_measurement(
        seconds,
        tokens_per_step=tokens_per_step,
        precision="bf16" if bf16 else "fp32",
        name=name,
        numbers={"train_loss": loss},
    )


def generate(work: GenerateWork, *, label: str, bf16: bool) -> RunSpec:
    """transformers' generate."""
    precision = "bf16" if bf16 else "fp32"
    return child_spec(
        "hf:generate",
        {**work.job(), "bf16": bf16},
        label=label,
        describes=f"GPT2LMHeadModel.generate, {precision}, KV cache, learned positions",
        read=partial(read_generations, precision=precision, name=label),
    )
