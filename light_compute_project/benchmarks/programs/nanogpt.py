"""nanoGPT: the user's own copy, unmodified, on our corpus.

Its Python files are copied into the trial's folder, so that nothing is written into the user's; its ids have the format
of our prepared corpus (raw uint16). Nothing of nanoGPT belongs to this project.
"""

from __future__ import annotations

import pickle
import re
import shutil
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.child import child_spec, read_generations
from benchmarks.runner import Measurement, RunSpec, training_measurement

if TYPE_CHECKING:
    from benchmarks.generating import GenerateWork
    from benchmarks.training import TrainWork

FILES = ("train.py", "model.py", "configurator.py")
DATASET = "benchmark"
EVAL_BATCHES = 5
"""Of each of two splits, before the first step and before the last: 20 in all."""
_EVALUATION = re.compile(r"^step (\d+): train loss [\d.naif]+, val loss ([\d.naif]+)", re.MULTILINE)
_STEP = re.compile(r"^iter (\d+): loss ([\d.naif]+), time ([\d.]+)ms", re.MULTILINE)


def train(work: TrainWork, *, label: str, compiled: bool) -> RunSpec:
    """nanoGPT's train.py; `compiled` is its `--compile`."""
    assert work.nanogpt_dir is not None
    source = work.nanogpt_dir

    def command(folder: Path) -> list[str]:
        vocabulary = work.model.padded_vocab_size
        return train_command(source, folder, corpus=work.corpus, vocabulary=vocabulary, flags=flags(work, compiled))

    def read(folder: Path, output: str) -> Measurement:
        return training_measurement(
            read_steps(output),
            tokens_per_step=work.tokens_per_step,
            precision="bf16" if work.device == "cuda" else "fp32",
            name=label,
            numbers={"train_loss": read_losses(output)[-1]},
        )

    how = "torch.compile" if compiled else "eager"
    return RunSpec(label=label, describes=f"nanoGPT's train.py, {how}", command=command, read=read)


def flags(work: TrainWork, compiled: bool) -> dict[str, object]:
    """Its flags for this work. On a CPU float32 is its only choice, on CUDA bfloat16 its default."""
    model, last = work.model, work.steps - 1
    return {
        "dataset": DATASET,
        "device": work.device,
        "compile": compiled,
        "dtype": "bfloat16" if work.device == "cuda" else "float32",
        "n_layer": model.n_layer,
        "n_head": model.n_head,
        "n_embd": model.n_embd,
        "block_size": model.block_size,
        "bias": model.bias,
        "dropout": 0.0,
        "batch_size": work.micro_batch_size,
        "gradient_accumulation_steps": work.batch_size // work.micro_batch_size,
        "learning_rate": work.lr,
        "beta1": work.betas[0],
        "beta2": work.betas[1],
        "weight_decay": work.weight_decay,
        "grad_clip": work.max_norm,
        "warmup_iters": 100,
        "max_iters": last,
        "lr_decay_iters": last,
        "min_lr": work.lr / 10,
        "log_interval": 1,
        "eval_interval": last,  # before the first step and before the last, where it also saves
        "eval_iters": EVAL_BATCHES,
        "wandb_log": False,
    }


def train_command(
    source: Path, folder: Path, *, corpus: Path, vocabulary: int, flags: Mapping[str, object]
) -> list[str]:
    """Copy nanoGPT's files and our ids, as its data set `benchmark`, into the folder; the command to train there.

    Args:
        source: The user's folder.
        folder: The trial's.
        corpus: Holds our train.bin and val.bin.
        vocabulary: Number of ids.
        flags: Name -> value.
    """
    for name in FILES:
        shutil.copyfile(source / name, folder / name)
    data = folder / "data" / DATASET
    data.mkdir(parents=True)
    for name in ("train.bin", "val.bin"):
        shutil.copyfile(corpus / name, data / name)
    with (data / "meta.pkl").open("wb") as file:
        pickle.dump({"vocab_size": vocabulary}, file)
    return [sys.executable, "train.py", *(f"--{name}={value}" for name, value in flags.items())]


def read_steps(output: str) -> list[float]:
    """Seconds of each step, from lines such as `iter 3: loss 4.1, time 41.20ms, mfu 0.01%`."""
    return [float(match[3]) / 1000 for match in _STEP.finditer(output)]


def read_losses(output: str) -> list[float]:
    """The training loss of each step, nats per token."""
    return [float(match[2]) for match in _STEP.finditer(output)]


def read_evaluations(output: str) -> list[tuple[int, float]]:
    """Iterations and their validation losses, from lines such as `step 250: train loss 2.4, val loss 2.5`."""
    return [(int(match[1]), float(match[2])) for match in _EVALUATION.finditer(output)]


def generate(work: GenerateWork, *, label: str) -> RunSpec:
    """nanoGPT's model.generate."""
    assert work.nanogpt_dir is not None
    return child_spec(
        "nanogpt:generate",
        work.job(),
        label=label,
        describes="nanoGPT's model.generate, fp32, no KV cache, learned positions",
        read=partial(read_generations, precision="fp32", name=label),
        files=[work.nanogpt_dir / name for name in FILES],
    )
