"""`benchmark.py to-loss`: the time to reach the loss that nanoGPT's CPU recipe ends at.

Both train Tiny Shakespeare by character as a user would: nanoGPT's `train.py` with the flags that its README gives for
a CPU, and `scripts/train.py +experiment=shakespeare_char`. Every trial starts with an empty compiler cache; ours takes
another seed each round (nanoGPT's is fixed in its file). Two times are recorded:

    clock   the optimizer steps alone: compiling, validating and saving left out, for both by the same rule
    wall    the whole command, from its start to its end

Both losses are over the whole validation split.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any

from benchmarks.child import run_child
from benchmarks.comparison import run_comparison
from benchmarks.options import BenchmarkOptions
from benchmarks.processes import available_threads
from benchmarks.programs.nanogpt import DATASET, read_evaluations, read_steps, train_command
from benchmarks.programs.ours import RUN, TRAIN, read_run_folder
from benchmarks.record import round_ratios, spread
from benchmarks.runner import Measurement, RunSpec, Trial
from litgpt_core.config.compose import load
from litgpt_core.core.errors import ConfigError, EnvironmentProblem
from litgpt_core.core.rates import number_kind
from litgpt_core.data.prepare import prepare
from litgpt_core.model.cost import count_parameters, flops_per_token

STEPS, BATCH, CONTEXT, EVAL_INTERVAL = 2000, 12, 64, 250
RECIPE: dict[str, object] = {
    "dataset": DATASET,
    "device": "cpu",
    "compile": False,
    "eval_interval": EVAL_INTERVAL,
    "eval_iters": 20,
    "log_interval": 1,
    "always_save_checkpoint": False,
    "wandb_log": False,
    "gradient_accumulation_steps": 1,
    "batch_size": BATCH,
    "block_size": CONTEXT,
    "n_layer": 4,
    "n_head": 4,
    "n_embd": 128,
    "dropout": 0.0,
    "learning_rate": 1e-3,
    "max_iters": STEPS,
    "lr_decay_iters": STEPS,
    "min_lr": 1e-4,
    "beta2": 0.99,
    "warmup_iters": 100,
}
"""nanoGPT's README, "I only have a macbook", over its config for Shakespeare by character."""


def run_to_loss(options: BenchmarkOptions, *, folder: Path) -> dict[str, Any]:
    """Run every trial in `folder`, an empty folder that the caller removes.

    Returns:
        The JSON of `record.comparison_record` with the keys of `compare`.

    Raises:
        LightComputeError: A mistake of the user's, or a trial that failed.
    """
    arguments = (f"+experiment={options.experiment}", *options.overrides)
    config = load(arguments)
    data = prepare(config.data, config.tokenizer)
    if data.dtype != "uint16":
        raise ConfigError(f"the corpus holds {data.dtype} ids", needed="at most 65,536 ids, which nanoGPT reads")
    model = config.model.build(vocab_size=data.vocab_size)
    threads = options.threads or available_threads()
    specs = [ours(arguments, seed=options.seed, threads=threads)]
    if options.nanogpt_dir is not None:
        specs.append(nanogpt(options.nanogpt_dir, corpus=data.directory, vocabulary=data.vocab_size, threads=threads))
    work = {
        "name": options.experiment,
        **{name: getattr(model, name) for name in ("n_layer", "n_head", "n_embd", "block_size")},
        "batch_size": config.trainer.batch.global_batch_size,
        "n_params": count_parameters(model),
        "flops_per_token": flops_per_token(model, seq_length=model.block_size),
        "threads": threads,
        "corpus": data.directory.name,
    }
    record, trials = run_comparison("to-loss", specs, options=options, work=work, folder=folder, fresh_caches=True)
    return {**record, **compare(specs, trials)}


def compare(specs: Sequence[RunSpec], trials: Sequence[Trial]) -> dict[str, Any]:
    """`losses` (label -> spread), and `to_loss`: each peer's clock and wall time over ours, within each round."""
    losses = {
        spec.label: spread([t.measurement.numbers["val_loss"] for t in trials if t.label == spec.label])
        for spec in specs
    }
    clock = {(t.label, t.round): t.measurement.numbers["clock_s"] for t in trials}
    wall = {(t.label, t.round): t.process.wall_s for t in trials}
    mine = specs[0].label
    times = {
        peer.label: {"clock": round_ratios(clock, peer.label, mine), "wall": round_ratios(wall, peer.label, mine)}
        for peer in specs[1:]
    }
    return {"losses": losses, "to_loss": times}


def ours(arguments: Sequence[str], *, seed: int, threads: int) -> RunSpec:
    """`scripts/train.py` with another seed in each trial."""
    seeds = count(seed)

    def command(folder: Path) -> list[str]:
        placed = (f"seed={next(seeds)}", f"trainer.threads={threads}", f"run.name={RUN}", "run.dir=runs")
        return [sys.executable, TRAIN, *arguments, "trainer.accelerator=cpu", "logger=csv", *placed]

    def read(folder: Path, output: str) -> Measurement:
        return read_ours(folder / "runs" / RUN)

    describes = "scripts/train.py " + " ".join(arguments)
    return RunSpec(label="ours", ours=True, describes=describes, command=command, read=read)


def read_ours(run: Path) -> Measurement:
    """A finished run folder.

    A row's rate is that of the steps since the previous row; the very first step, which compiles, counts at the rate of
    those after it.

    Raises:
        EnvironmentProblem: The folder is not that of a finished run.
    """
    summary, rows = read_run_folder(run, name="ours")
    rates = [row["tokens_per_s"] for row in rows]
    if not rates or None in rates[1:] or rates[-1] is None:
        raise EnvironmentProblem("ours wrote too few rows", needed="at least two", fix="--set trainer.log_interval=10")
    rates[0] = rates[0] or rates[1]  # a first row that holds the first step alone has no rate
    clock, before, curve, seconds = 0.0, 0, [], []
    for row, rate in zip(rows, rates, strict=True):
        taken = (row["tokens"] - before) / rate
        clock, before = clock + taken, row["tokens"]
        seconds.append(taken)
        if row["val_loss"] is not None:
            curve.append((clock, row["val_loss"]))
    numbers = {
        "clock_s": clock,
        "val_loss": summary["whole_split"]["val_loss"],
        "compile_s": summary["compile_s"],
        "tokens": float(before),
        "n_params": float(summary["n_params"]),
    }
    precision = number_kind(summary["precision"])
    return Measurement(tokens_per_s=before / clock, precision=precision, numbers=numbers, raw=seconds, curve=curve)


def nanogpt(source: Path, *, corpus: Path, vocabulary: int, threads: int) -> RunSpec:
    """nanoGPT's train.py with its README's flags for a CPU."""

    def command(folder: Path) -> list[str]:
        return train_command(source, folder, corpus=corpus, vocabulary=vocabulary, flags=RECIPE)

    def read(folder: Path, output: str) -> Measurement:
        job, name = {"val": str(corpus / "val.bin")}, "evaluating nanoGPT's checkpoint"
        reached = run_child("nanogpt:evaluate", job, folder=folder, threads=threads, name=name)
        return read_nanogpt(output, reached=reached)

    describes = "nanoGPT's train.py with its README's flags for a CPU"
    return RunSpec(label="nanogpt", describes=describes, command=command, read=read)


def read_nanogpt(output: str, *, reached: dict[str, Any]) -> Measurement:
    """The output of its train.py. An iteration that evaluates, and the first, count as the median one.

    Args:
        output: Of its train.py.
        reached: The result of `children.nanogpt.evaluate`.

    Raises:
        EnvironmentProblem: It holds no iterations.
    """
    seconds = read_steps(output)
    if not seconds:
        raise EnvironmentProblem("nanogpt printed no iterations", needed="a train.py that prints its times")
    usual = statistics.median(seconds)
    steps = [usual if i % EVAL_INTERVAL == 0 else s for i, s in enumerate(seconds)]
    evaluations = read_evaluations(output)
    numbers = {
        "clock_s": sum(steps),
        "val_loss": reached["val_loss"],
        "compile_s": 0.0,
        "tokens": float(len(seconds) * BATCH * CONTEXT),
        "n_params": float(reached["n_params"]),
    }
    return Measurement(
        tokens_per_s=numbers["tokens"] / numbers["clock_s"],
        precision="fp32",
        numbers=numbers,
        raw=steps,
        curve=[(sum(steps[:step]), loss) for step, loss in evaluations if step],
    )
