"""The command line of scripts/benchmark.py: its arguments, and what each of its verbs calls."""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.peers import GENERATE_PEERS, TRAIN_PEERS, check_nanogpt, choose_peers
from litgpt_core.core.command_line import CommandParser
from litgpt_core.core.errors import ConfigError
from litgpt_core.core.machine import PROJECT_DIR

VERBS = {
    "train": "training: tokens/s, GFLOP/s, memory, seconds of the whole command",
    "to-loss": "seconds to the loss that nanoGPT's CPU recipe ends at, on Tiny Shakespeare by character",
    "generate": "batch-1 decoding: tokens/s, time to the first token",
    "serve": "the server under load: tokens/s of one stream and of many, first-token latency",
    "ladder": "training on a GPU: 124M and 1B parameters, MFU",
    "ceiling": "what this machine can do: GFLOP/s of its matrix product, GB/s of its memory",
    "loss-memory": "peak memory of the loss over a large vocabulary, with and without chunks",
}


def parse(arguments: Sequence[str], *, description: str) -> argparse.Namespace:
    """The parsed command line; prints help and leaves the process where that was asked for."""
    parser = CommandParser("benchmark", description=description)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    made = {name: verbs.add_parser(name, help=text, description=text) for name, text in VERBS.items()}

    add = made["train"].add_argument
    add("--shape", default="small", choices=("small", "large"), help="experiment bench_SHAPE (small)")
    add("--against", default="", help="comma-separated, or all: " + ", ".join(TRAIN_PEERS))
    add("--set", action="append", default=[], metavar="OVERRIDE", help="changes the work for everybody; repeatable")
    for name in ("train", "ladder"):
        add = made[name].add_argument
        add("--ours", action="append", default=[], metavar="LABEL=OVERRIDES", help="a variant of ours; repeatable")
        add("--steps", type=int, help="optimizer steps of a lap (the experiment's)")

    add = made["to-loss"].add_argument
    add("--experiment", default="shakespeare_char", help="ours (shakespeare_char)")
    add("--set", action="append", default=[], metavar="OVERRIDE", help="changes ours; repeatable")
    add("--seed", type=int, default=1337, help="of our first round; the next takes the next (1337)")

    add = made["generate"].add_argument
    add("--shape", default="10m", choices=("10m", "124m"), help="the model (10m)")
    add("--against", default="", help="comma-separated, or all: " + ", ".join(GENERATE_PEERS))
    add("--precision", default="bf16", help="of ours, as generate.py's; several with commas (bf16)")
    add("--batch", default="1", help="texts side by side, of ours: 1,4,16 (1)")
    add("--prompt_tokens", type=int, default=16, help="tokens of the prompt (16)")
    add("--new_tokens", type=int, default=200, help="tokens of a generation (200)")
    add("--repeats", type=int, default=3, help="generations of a lap, after one that warms up (3)")

    add = made["serve"].add_argument
    add("--shape", default="10m", choices=("10m", "124m"), help="the model (10m)")
    add("--streams", default="1,32", help="how many at once; every number gets a lap in every round (1,32)")
    add("--requests", type=int, default=2, help="requests one after the other on every stream of a lap (2)")
    add("--prompt_tokens", type=int, default=16, help="tokens of the prompt (16)")
    add("--new_tokens", type=int, default=200, help="tokens of an answer (200)")

    add = made["ladder"].add_argument
    add("--rungs", default="124m,1b", help="comma-separated (124m,1b)")
    add("--litgpt", action="store_true", help="race against litgpt pretrain too")

    add = made["loss-memory"].add_argument
    add("--vocab", type=int, default=128_256, help="ids (128256)")
    add("--tokens", type=int, default=4096, help="tokens of a batch (4096)")
    add("--width", type=int, default=512, help="n_embd (512)")
    add("--chunks", default="0,512,128", help="variants of trainer.loss_chunk_size, 0 for all at once (0,512,128)")

    for name, verb in made.items():
        _shared(verb, name)
    return parser.parse_args(arguments)


def _shared(parser: argparse.ArgumentParser, verb: str) -> None:
    add = parser.add_argument
    if verb in ("train", "to-loss", "generate", "ladder"):
        add("--nanogpt_dir", type=Path, help="a folder that holds nanoGPT")
        add("--lap_timeout", type=float, default=1800.0, help="seconds for one lap (1800)")
    if verb != "ceiling":
        add("--rounds", type=int, default=3, help="how often each contestant runs (3)")
    if verb != "ladder":
        add("--threads", type=int, help="CPU threads of every contestant (all there are)")
    if verb not in ("ladder", "to-loss"):
        add("--device", default="cpu", choices=("cpu", "cuda"), help="where to compute (cpu)")
    add("--out", type=Path, help="JSON to write; a race draws its chart beside it (metrics/benchmark-*.json)")
    add("--keep", type=Path, metavar="FOLDER", help="keep what the processes wrote, in this new folder")


def run(arguments: argparse.Namespace, *, command: str) -> int:
    """Carry out the verb; 0 when done.

    Raises:
        LightComputeError: Anything the user can mend.
    """
    if arguments.out is not None and arguments.out.is_dir():  # told now, and not after the race
        raise ConfigError(f"--out {arguments.out} is a folder", needed="a file", fix=f"--out {arguments.out}/race.json")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the contestant that runs is ended too
    with tempfile.TemporaryDirectory(prefix="race-", ignore_cleanup_errors=True) as temporary:
        folder = Path(temporary)
        if arguments.keep is not None:
            folder = arguments.keep.resolve()
            if folder.exists() and any(folder.iterdir()):
                raise ConfigError(f"--keep {arguments.keep} holds files already", needed="a new or empty folder")
            folder.mkdir(parents=True, exist_ok=True)
        VERB_FUNCTIONS[arguments.verb](arguments, folder, command)
    return 0


def _train(arguments: argparse.Namespace, folder: Path, command: str) -> None:
    from benchmarks.training import TrainRace, run_training_race

    race = TrainRace(
        against=choose_peers(arguments.against, known=TRAIN_PEERS, nanogpt_dir=arguments.nanogpt_dir),
        shape=arguments.shape,
        variants=tuple(arguments.ours),
        overrides=tuple(arguments.set),
        nanogpt_dir=arguments.nanogpt_dir,
        rounds=arguments.rounds,
        steps=arguments.steps,
        threads=arguments.threads,
        device=arguments.device,
        lap_timeout_s=arguments.lap_timeout,
    )
    record = run_training_race(race, folder=folder, command=command)
    _leave_race(record, arguments.out or _place(f"train-{arguments.shape}"))


def _to_loss(arguments: argparse.Namespace, folder: Path, command: str) -> None:
    from benchmarks.to_loss import ToLossRace, run_to_loss
    from benchmarks.to_loss_report import draw_to_loss, to_loss_tables

    race = ToLossRace(
        nanogpt_dir=arguments.nanogpt_dir and check_nanogpt(arguments.nanogpt_dir),
        experiment=arguments.experiment,
        overrides=tuple(arguments.set),
        rounds=arguments.rounds,
        seed=arguments.seed,
        threads=arguments.threads,
        lap_timeout_s=arguments.lap_timeout,
    )
    record = run_to_loss(race, folder=folder, command=command)
    path = arguments.out or _place(f"to-loss-{arguments.experiment}")
    draw_to_loss(record, path.with_suffix(".png"))
    _leave(record, path, to_loss_tables(record))


def _generate(arguments: argparse.Namespace, folder: Path, command: str) -> None:
    from benchmarks.generating import GenerateRace, dtypes_of, run_generation_race

    race = GenerateRace(
        against=choose_peers(arguments.against, known=GENERATE_PEERS, nanogpt_dir=arguments.nanogpt_dir),
        shape=arguments.shape,
        dtypes=dtypes_of(arguments.precision),
        batches=_whole_numbers("--batch", arguments.batch),
        prompt_tokens=arguments.prompt_tokens,
        new_tokens=arguments.new_tokens,
        repeats=arguments.repeats,
        nanogpt_dir=arguments.nanogpt_dir,
        rounds=arguments.rounds,
        threads=arguments.threads,
        device=arguments.device,
        lap_timeout_s=arguments.lap_timeout,
    )
    record = run_generation_race(race, folder=folder, command=command)
    _leave_race(record, arguments.out or _place(f"generate-{arguments.shape}"))


def _serve(arguments: argparse.Namespace, folder: Path, command: str) -> None:
    from benchmarks.serving_load import LoadTest, load_table, run_load_test

    test = LoadTest(
        shape=arguments.shape,
        streams=_whole_numbers("--streams", arguments.streams),
        requests=arguments.requests,
        prompt_tokens=arguments.prompt_tokens,
        new_tokens=arguments.new_tokens,
        rounds=arguments.rounds,
        threads=arguments.threads,
        device=arguments.device,
    )
    record = run_load_test(test, folder=folder, command=command)
    _leave(record, arguments.out or _place(f"serve-{arguments.shape}"), [load_table(record)])


def _ladder(arguments: argparse.Namespace, folder: Path, command: str) -> None:
    from benchmarks.ladder import RUNGS, run_ladder

    rungs = [name.strip() for name in arguments.rungs.split(",") if name.strip()]
    if not rungs or (set(rungs) - set(RUNGS)):
        raise ConfigError(f"--rungs {arguments.rungs!r}", needed="any of " + ", ".join(RUNGS))
    if arguments.nanogpt_dir is not None:
        check_nanogpt(arguments.nanogpt_dir)
    records = run_ladder(
        rungs,
        nanogpt_dir=arguments.nanogpt_dir,
        litgpt=arguments.litgpt,
        rounds=arguments.rounds,
        steps=arguments.steps,
        variants=tuple(arguments.ours),
        lap_timeout_s=arguments.lap_timeout,
        folder=folder,
        command=command,
    )
    for rung, record in zip(rungs, records, strict=True):
        out = arguments.out and arguments.out.with_stem(f"{arguments.out.stem}-{rung}")
        _leave_race(record, out or _place(f"gpu-{rung}"))


def _ceiling(arguments: argparse.Namespace, folder: Path, command: str) -> None:
    from benchmarks.provenance import measure_ceiling, provenance
    from benchmarks.table import ceiling_table
    from benchmarks.workload import available_threads

    found = measure_ceiling(folder, device=arguments.device, threads=arguments.threads or available_threads())
    _leave({"kind": "ceiling", **provenance(command), **found}, arguments.out, [ceiling_table(found)])


def _loss_memory(arguments: argparse.Namespace, folder: Path, command: str) -> None:
    from benchmarks.memory import LossMemory, measure_loss_memory
    from benchmarks.provenance import provenance
    from benchmarks.table import memory_table

    settings = LossMemory(
        vocabulary=arguments.vocab,
        tokens=arguments.tokens,
        width=arguments.width,
        chunk_sizes=_whole_numbers("--chunks", arguments.chunks),
        rounds=arguments.rounds,
        threads=arguments.threads,
        device=arguments.device,
    )
    record = measure_loss_memory(settings, folder=folder, provenance=provenance(command))
    _leave(record, arguments.out or _place("loss-memory"), [memory_table(record)])


VERB_FUNCTIONS = {
    "train": _train,
    "to-loss": _to_loss,
    "generate": _generate,
    "serve": _serve,
    "ladder": _ladder,
    "ceiling": _ceiling,
    "loss-memory": _loss_memory,
}


def _whole_numbers(name: str, text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise ConfigError(f"{name} {text!r}", needed="whole numbers with commas between them")
    return tuple(int(part) for part in parts)


def _place(name: str) -> Path:
    return PROJECT_DIR / "metrics" / f"benchmark-{name}.json"


def _leave_race(record: dict[str, Any], path: Path) -> None:
    from benchmarks.chart import draw_race
    from benchmarks.table import race_tables

    draw_race(record, path.with_suffix(".png"))
    _leave(record, path, race_tables(record))


def _leave(record: dict[str, Any], path: Path | None, tables: Sequence[object]) -> None:
    from rich.console import Console

    from benchmarks.record import write_record

    console = Console()
    for table in tables:
        console.print(table)
    if path is not None:
        write_record(record, path)
        console.print(f"written: {path}", soft_wrap=True, highlight=False)
