"""nanoGPT in the training race: the user's own copy, its train.py unmodified, on our corpus.

Its Python files are copied into the lap's folder, so that nothing is written into the user's; the corpus' ids are in
its own format (raw uint16) already. Nothing of nanoGPT belongs to this project.
"""

from __future__ import annotations

import pickle
import re
import shutil
import sys
from pathlib import Path

from benchmarks.peers import NANOGPT_FILES
from benchmarks.race import Contestant, Reading, steady_seconds
from benchmarks.workload import Workload

DATASET = "benchmark"
EVAL_BATCHES = 5
"""Of each of two splits, before the first step and before the last: 20 in all."""
_EVALUATION = re.compile(r"^step (\d+): train loss [\d.naif]+, val loss ([\d.naif]+)", re.MULTILINE)
_STEP = re.compile(r"^iter (\d+): loss ([\d.naif]+), time ([\d.]+)ms", re.MULTILINE)


def nanogpt(workload: Workload, *, label: str, source: Path, compiled: bool) -> Contestant:
    """nanoGPT's train.py.

    Args:
        workload: The work.
        label: Its name in the race.
        source: The user's folder.
        compiled: `--compile=True`.
    """

    def command(folder: Path) -> list[str]:
        copy_nanogpt(source, folder, corpus=workload.corpus, vocabulary=workload.model.padded_vocab_size)
        return [sys.executable, "train.py", *flags(workload, compiled=compiled)]

    def read(folder: Path, output: str) -> Reading:
        seconds = read_steps(output)
        return Reading(
            tokens_per_s=workload.tokens_per_step / steady_seconds(seconds, name=label),
            precision="bf16" if workload.device == "cuda" else "fp32",
            numbers={"train_loss": read_losses(output)[-1]},
            raw=seconds,
        )

    how = "torch.compile" if compiled else "eager"
    return Contestant(label=label, ours=False, describes=f"nanoGPT's train.py, {how}", command=command, read=read)


def flags(workload: Workload, *, compiled: bool) -> list[str]:
    """nanoGPT's own flags for this work; float32 on a CPU is its only choice, bfloat16 on CUDA its default."""
    model, last = workload.model, workload.steps - 1
    values: dict[str, object] = {
        "dataset": DATASET,
        "device": workload.device,
        "compile": compiled,
        "dtype": "bfloat16" if workload.device == "cuda" else "float32",
        "n_layer": model.n_layer,
        "n_head": model.n_head,
        "n_embd": model.n_embd,
        "block_size": model.block_size,
        "bias": model.bias,
        "dropout": 0.0,
        "batch_size": workload.micro_batch_size,
        "gradient_accumulation_steps": workload.batch_size // workload.micro_batch_size,
        "learning_rate": workload.lr,
        "beta1": workload.betas[0],
        "beta2": workload.betas[1],
        "weight_decay": workload.weight_decay,
        "grad_clip": workload.max_norm,
        "warmup_iters": 100,
        "max_iters": last,
        "lr_decay_iters": last,
        "min_lr": workload.lr / 10,
        "log_interval": 1,
        "eval_interval": last,  # before the first step and before the last, where it also saves
        "eval_iters": EVAL_BATCHES,
        "wandb_log": False,
    }
    return [f"--{name}={value}" for name, value in values.items()]


def read_steps(output: str) -> list[float]:
    """Seconds of each step, from lines such as `iter 3: loss 4.1, time 41.20ms, mfu 0.01%`."""
    return [float(match[3]) / 1000 for match in _STEP.finditer(output)]


def read_losses(output: str) -> list[float]:
    """The training loss of each step, nats per token."""
    return [float(match[2]) for match in _STEP.finditer(output)]


def read_evaluations(output: str) -> list[tuple[int, float]]:
    """Iterations and their validation losses, from lines such as `step 250: train loss 2.4, val loss 2.5`."""
    return [(int(match[1]), float(match[2])) for match in _EVALUATION.finditer(output)]


def copy_nanogpt(source: Path, folder: Path, *, corpus: Path, vocabulary: int) -> None:
    """Copy the three files it consists of, and lay our ids beside them as its data set `benchmark`."""
    for name in NANOGPT_FILES:
        shutil.copyfile(source / name, folder / name)
    data = folder / "data" / DATASET
    data.mkdir(parents=True)
    for name in ("train.bin", "val.bin"):
        shutil.copyfile(corpus / name, data / name)
    with (data / "meta.pkl").open("wb") as file:
        pickle.dump({"vocab_size": vocabulary}, file)
