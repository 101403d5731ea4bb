"""`benchmark.py train` and `ladder`: training speed of all programs on the same work."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.comparison import run_comparison
from benchmarks.options import BenchmarkOptions
from benchmarks.peers import TRAIN_PEERS
from benchmarks.processes import available_threads
from benchmarks.programs import ours
from litgpt_core.config.compose import load
from litgpt_core.core.errors import ConfigError, EnvironmentProblem
from litgpt_core.data.prepare import prepare
from litgpt_core.model.config import GPTConfig
from litgpt_core.model.cost import count_parameters, flops_per_token

MIN_STEPS = 6


@dataclass(frozen=True, kw_only=True)
class TrainWork:
    """What every program trains: one shape, one corpus, a number of steps, taken from one experiment's YAML."""

    name: str
    """Name in tables."""
    arguments: tuple[str, ...]
    """For train.py: the experiment and further overrides."""
    model: GPTConfig
    """Ours; the peers get its numbers."""
    batch_size: int
    """Sequences per optimizer step."""
    micro_batch_size: int
    """Sequences per forward pass."""
    steps: int
    """Optimizer steps of one trial."""
    lr: float
    betas: tuple[float, float]
    weight_decay: float
    max_norm: float
    threads: int
    device: str
    """cpu or cuda."""
    corpus: Path
    """Prepared folder with train.bin and val.bin: raw uint16 ids."""
    nanogpt_dir: Path | None = None
    """The user's copy of nanoGPT."""

    def __post_init__(self) -> None:
        if self.steps < MIN_STEPS:
            raise ConfigError(
                f"--steps {self.steps}",
                needed=f"at least {MIN_STEPS}: the first half of a trial warms up, the second is measured",
                fix=f"--steps {MIN_STEPS}",
            )

    @property
    def tokens_per_step(self) -> int:
        """Tokens of one optimizer step."""
        return self.batch_size * self.model.block_size

    def facts(self) -> dict[str, Any]:
        """Plain values for the JSON. FLOPs are counted by `model.cost`, with the same result for every program."""
        model = self.model
        return {
            "name": self.name,
            **{name: getattr(model, name) for name in ("n_layer", "n_head", "n_embd", "block_size")},
            "vocabulary": model.padded_vocab_size,
            "batch_size": self.batch_size,
            "micro_batch_size": self.micro_batch_size,
            "steps": self.steps,
            "tokens_per_step": self.tokens_per_step,
            "n_params": count_parameters(model),
            "flops_per_token": flops_per_token(model, seq_length=model.block_size),
            "threads": self.threads,
            "device": self.device,
            "corpus": self.corpus.name,
        }


def train_work(options: BenchmarkOptions) -> TrainWork:
    """Compose `+experiment=bench_<shape>`, prepare its corpus, and take the numbers.

    Raises:
        ConfigError: The experiment or an override is wrong, a peer lacks a setting, or there are too few steps.
        DataError: The corpus is missing.
    """
    arguments = (f"+experiment=bench_{options.shape}", *options.overrides)
    config = load(arguments)
    optim, batch = config.optim, config.trainer.batch
    if optim.kind != "adamw" or batch.max_norm is None:
        raise ConfigError(
            f"optim={optim.kind}, trainer.max_norm={batch.max_norm} for every program",
            needed="AdamW and gradient clipping, which every peer has",
            fix='another optimizer for ours alone: --ours "muon=optim=muon"',
        )
    data = prepare(config.data, config.tokenizer)
    if data.dtype != "uint16":
        raise ConfigError(f"the corpus holds {data.dtype} ids", needed="at most 65,536 ids, which every peer reads")
    first, second = optim.betas
    return TrainWork(
        name=options.shape,
        arguments=arguments,
        model=config.model.build(vocab_size=data.vocab_size),
        batch_size=batch.global_batch_size,
        micro_batch_size=batch.micro_batch,
        steps=config.trainer.stop.max_steps if options.steps is None else options.steps,
        lr=optim.lr,
        betas=(first, second),
        weight_decay=optim.weight_decay,
        max_norm=batch.max_norm,
        threads=options.threads or available_threads(),
        device=options.device,
        corpus=data.directory,
        nanogpt_dir=options.nanogpt_dir,
    )


def run_training(options: BenchmarkOptions, *, folder: Path) -> dict[str, Any]:
    """Run every trial in `folder`, an empty folder that the caller removes; the JSON of `record.comparison_record`.

    Raises:
        LightComputeError: A mistake of the user's, before the first trial where possible.
    """
    work = train_work(options)
    specs = [ours.train(work), *(ours.train(work, label=label, overrides=own) for label, own in options.variants)]
    specs += [TRAIN_PEERS[name](work, label=name) for name in options.against]
    return run_comparison("train", specs, options=options, work=work.facts(), folder=folder)[0]


def run_ladder(options: BenchmarkOptions, *, folder: Path) -> Sequence[dict[str, Any]]:
    """Run the training benchmark on each GPU shape; one record each.

    124m is GPT-2's smallest at context 1024, compared with nanoGPT where its folder is given; 1b is Llama 3.2's
    smallest at context 2048. `--litgpt` compares both with LitGPT. MFU is relative to the data sheet's dense bf16 rate.

    Raises:
        EnvironmentProblem: There is no GPU, or a trial failed.
    """
    check_gpu()
    records = []
    for rung in options.rungs:
        one = copy.copy(options)
        one.shape = f"gpu_{rung}"
        nanogpt = ("nanogpt-compiled",) if options.nanogpt_dir is not None and rung == "124m" else ()
        one.against = (*nanogpt, *(("litgpt-bf16",) if options.litgpt else ()))
        records.append(run_training(one, folder=folder / rung))
    return records


def check_gpu() -> str:
    """The GPU's name, determined in another process, so that this one stays small.

    Raises:
        EnvironmentProblem: torch finds none.
    """
    probe = "import torch; print(torch.cuda.get_device_name() if torch.cuda.is_available() else '')"
    done = subprocess.run([sys.executable, "-P", "-c", probe], capture_output=True, text=True, timeout=120, check=False)
    name = done.stdout.strip()
    if not name:
        raise EnvironmentProblem(
            "ladder: torch finds no CUDA device",
            needed="an NVIDIA GPU with about 80 GB and torch built for CUDA, to train 124M and 1.2B parameters",
            fix="this command on such a machine; on a CPU: benchmark.py train --shape small",
        )
    return name
