"""`benchmark.py to-loss`: how long it takes to reach the loss that nanoGPT's CPU recipe ends at.

Both train Tiny Shakespeare by character as a user would: nanoGPT's `train.py` with the flags that its README gives for
a CPU, and `scripts/train.py +experiment=shakespeare_char`. Every lap starts with an empty compiler cache; ours takes
another seed each round (nanoGPT's is fixed in its file). Two times are kept apart:

    clock   the optimizer steps alone: compiling, validating and saving left out, for both by the same rule
    wall    the whole command, from its start to its end

and both losses are over the whole validation split.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from benchmarks.child import child_command, child_result
from benchmarks.processes import run_measured, thread_variables
from benchmarks.provenance import measure_ceiling, provenance
from benchmarks.race import Contestant, Lap, Reading, run_race
from benchmarks.record import race_record, spread
from benchmarks.train_nanogpt import copy_nanogpt, read_evaluations, read_steps
from benchmarks.workload import available_threads
from litgpt_core.config.compose import load
from litgpt_core.core.errors import ConfigError, EnvironmentProblem
from litgpt_core.core.machine import PROJECT_DIR
from litgpt_core.core.rates import number_kind
from litgpt_core.data.prepare import prepare
from litgpt_core.model.cost import count_parameters, flops_per_token

STEPS, BATCH, CONTEXT, EVAL_INTERVAL = 2000, 12, 64, 250
RECIPE: dict[str, object] = {
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
RUN = "run"


@dataclass(frozen=True, kw_only=True)
class ToLossRace:
    """What the command line says."""

    nanogpt_dir: Path | None
    """None trains ours alone."""
    experiment: str = "shakespeare_char"
    overrides: tuple[str, ...] = ()
    """For ours."""
    rounds: int = 3
    seed: int = 1337
    """Of our first round; the next takes the next."""
    threads: int | None = None
    lap_timeout_s: float = 1800.0

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise ConfigError(f"--rounds {self.rounds}", needed="1 or more")


def run_to_loss(race: ToLossRace, *, folder: Path, command: str) -> dict[str, Any]:
    """Run it in `folder`, an empty folder that the caller removes.

    Returns:
        The JSON of `record.race_record`; `losses` (label -> spread), and `to_loss` with the peer's clock and wall over
        ours, formed within each round.

    Raises:
        LightComputeError: Anything the user can mend, or a lap that failed.
    """
    arguments = (f"+experiment={race.experiment}", *race.overrides)
    config = load(arguments)
    data = prepare(config.data, config.tokenizer)
    if data.dtype != "uint16":
        raise ConfigError(f"the corpus holds {data.dtype} ids", needed="at most 65,536 ids, which nanoGPT reads")
    model = config.model.build(vocab_size=data.vocab_size)
    threads = race.threads or available_threads()
    contestants = [ours(arguments, seed=race.seed, threads=threads)]
    if race.nanogpt_dir is not None:
        contestants.append(nanogpt(race.nanogpt_dir, corpus=data.directory, vocabulary=data.vocab_size))
    peers = [one.label for one in contestants if not one.ours]
    origin = provenance(command, peers=peers, nanogpt_dir=race.nanogpt_dir)
    ceiling = measure_ceiling(folder, device="cpu", threads=threads)
    laps = run_race(
        contestants,
        rounds=race.rounds,
        folder=folder,
        environment=thread_variables(threads),
        timeout_s=race.lap_timeout_s,
        fresh_caches=True,
    )
    work = {
        "name": race.experiment,
        "n_layer": model.n_layer,
        "n_head": model.n_head,
        "n_embd": model.n_embd,
        "block_size": model.block_size,
        "batch_size": config.trainer.global_batch_size,
        "n_params": count_parameters(model),
        "flops_per_token": flops_per_token(model, seq_length=model.block_size),
        "threads": threads,
        "corpus": data.directory.name,
    }
    record = race_record("to-loss", contestants=contestants, laps=laps, work=work, ceiling=ceiling, provenance=origin)
    return {**record, **compare(contestants, laps)}


def compare(contestants: Sequence[Contestant], laps: Sequence[Lap]) -> dict[str, Any]:
    """Losses of all, and how many times our clock and our wall fit into a peer's of the same round."""
    losses = {
        one.label: spread([lap.reading.numbers["val_loss"] for lap in laps if lap.label == one.label])
        for one in contestants
    }
    found: dict[str, Any] = {}
    mine = {lap.round: lap for lap in laps if lap.label == contestants[0].label}
    for peer in contestants[1:]:
        theirs = {lap.round: lap for lap in laps if lap.label == peer.label}
        clock = [theirs[i].reading.numbers["clock_s"] / mine[i].reading.numbers["clock_s"] for i in mine]
        wall = [theirs[i].finished.wall_s / mine[i].finished.wall_s for i in mine]
        found[peer.label] = {"clock": {**spread(clock), "rounds": clock}, "wall": {**spread(wall), "rounds": wall}}
    return {"losses": losses, "to_loss": found}


def ours(arguments: Sequence[str], *, seed: int, threads: int) -> Contestant:
    """`scripts/train.py`, another seed each lap."""
    seeds = count(seed)

    def command(folder: Path) -> list[str]:
        script = str(PROJECT_DIR / "scripts" / "train.py")
        placed = (f"seed={next(seeds)}", f"trainer.threads={threads}", f"run.name={RUN}", "run.dir=runs")
        return [sys.executable, script, *arguments, "trainer.accelerator=cpu", "logger=csv", *placed]

    def read(folder: Path, output: str) -> Reading:
        return read_ours(folder / "runs" / RUN)

    told = "scripts/train.py " + " ".join(arguments)
    return Contestant(label="ours", ours=True, describes=told, command=command, read=read)


def read_ours(run: Path) -> Reading:
    """A finished run folder. A row's rate is that of the steps since the row before; the first step of all, which
    compiles, is counted at the rate of those after it.

    Raises:
        EnvironmentProblem: The folder is not that of a finished run.
    """
    try:
        summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise EnvironmentProblem(f"ours left no readable run folder: {error}") from None
    clock, before, curve, seconds = 0.0, 0, [], []
    rates = [row["tokens_per_s"] for row in rows]
    if not rates or None in rates[1:] or rates[-1] is None:
        raise EnvironmentProblem("ours wrote too few rows", needed="two at least", fix="--set trainer.log_interval=10")
    rates[0] = rates[0] or rates[1]  # a first row that holds the first step alone has no rate
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
    return Reading(
        tokens_per_s=before / clock,
        precision=number_kind(summary["precision"]),
        numbers=numbers,
        raw=seconds,
        curve=curve,
    )


def nanogpt(source: Path, *, corpus: Path, vocabulary: int) -> Contestant:
    """nanoGPT's train.py with its README's flags for a CPU."""

    def command(folder: Path) -> list[str]:
        copy_nanogpt(source, folder, corpus=corpus, vocabulary=vocabulary)
        values = {"dataset": "benchmark", **RECIPE}
        return [sys.executable, "train.py", *(f"--{name}={value}" for name, value in values.items())]

    def read(folder: Path, output: str) -> Reading:
        run_measured(
            child_command("peer_nanogpt_loss", {"val": str(corpus / "val.bin")}, folder=folder),
            folder=folder,
            environment={},
            timeout_s=600,
            name="nanoGPT's checkpoint",
        )
        reached = child_result(folder, name="nanoGPT's checkpoint")
        return read_nanogpt(output, reached=reached)

    return Contestant(
        label="nanogpt",
        ours=False,
        describes="nanoGPT's train.py with its README's flags for a CPU",
        command=command,
        read=read,
    )


def read_nanogpt(output: str, *, reached: dict[str, Any]) -> Reading:
    """What it printed. An iteration that evaluates, and the first, are counted as a usual one.

    Args:
        output: Of its train.py.
        reached: What `peer_nanogpt_loss` found.

    Raises:
        EnvironmentProblem: There are no iterations in it.
    """
    seconds = read_steps(output)
    if not seconds:
        raise EnvironmentProblem("nanogpt printed no iterations", needed="a train.py that prints its times")
    usual = statistics.median(seconds)
    pure = [usual if i % EVAL_INTERVAL == 0 else s for i, s in enumerate(seconds)]
    until = {step: sum(pure[:step]) for step, _ in read_evaluations(output)}
    numbers = {
        "clock_s": sum(pure),
        "val_loss": reached["val_loss"],
        "compile_s": 0.0,
        "tokens": float(len(seconds) * BATCH * CONTEXT),
        "n_params": float(reached["n_params"]),
    }
    return Reading(
        tokens_per_s=numbers["tokens"] / numbers["clock_s"],
        precision="fp32",
        numbers=numbers,
        raw=pure,
        curve=[(until[step], loss) for step, loss in read_evaluations(output) if step],
    )
