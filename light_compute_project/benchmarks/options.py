"""The options of `lcp benchmark`. No torch: `--help` and mistakes answer at once."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.peers import GENERATE_PEERS, SERVE_PEERS, TRAIN_PEERS, check_nanogpt, choose_peers
from benchmarks.programs.ours import parse_variant
from litgpt_core.core.command_line import CommandParser

VERBS = {
    "train": "training: tokens/s, GFLOP/s, memory, seconds of the whole command",
    "to-loss": "seconds to the loss that nanoGPT's CPU recipe ends at, on Tiny Shakespeare by character",
    "generate": "decoding at batch 1: tokens/s, time to the first token",
    "serve": "the server under load: tokens/s of one stream and of many, first-token latency",
    "ladder": "training on a GPU: 124M and 1B parameters, MFU",
    "ceiling": "the limits of this machine: GFLOP/s of its matrix product, GB/s of its memory",
    "loss-memory": "peak memory of the loss over a large vocabulary, with and without chunks",
    "growth": "how cost grows with tokens, layers, context and vocabulary: one picture",
    "gpu": "what is expected of a GPU, in ten minutes: numbers, resume, speed, memory; a page says what held",
}


class BenchmarkOptions(argparse.Namespace):
    """The parsed command line. A verb sets its own options only."""

    command: str
    """The whole command line, for the record."""
    verb: str
    shape: str
    model: str | None
    experiment: str
    names: str
    """--against as given."""
    against: tuple[str, ...]
    """Its peers, checked."""
    variants: list[tuple[str, list[str]]]
    """Further programs of ours: label and overrides."""
    overrides: list[str]
    """Change the work of every program; in to-loss, ours."""
    steps: int | None
    seed: int
    precision: tuple[str, ...]
    batch: tuple[int, ...]
    prompt_tokens: int
    new_tokens: int
    repeats: int
    streams: tuple[int, ...]
    requests: int
    rungs: tuple[str, ...]
    litgpt: bool
    vocab: int
    tokens: int
    width: int
    chunks: tuple[int, ...]
    contexts: tuple[int, ...]
    vocabularies: tuple[int, ...]
    nanogpt_dir: Path | None
    minutes: int
    dry_run: bool
    rounds: int
    threads: int | None
    device: str
    trial_timeout: float
    out: Path | None
    keep: Path | None


def parse(arguments: Sequence[str], *, description: str, command: str = "") -> BenchmarkOptions:
    """Parse the command line, and check the peers that it names.

    Args:
        arguments: Without the script.
        description: For --help.
        command: The whole command, for the record.

    Raises:
        LightComputeError: A peer is unknown or not installed, or a variant is malformed.
        SystemExit: Help was requested (0), or an option is wrong (2).
    """
    parser = CommandParser("benchmark", description=description)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for name, text in VERBS.items():
        verb = verbs.add_parser(name, help=text, description=text)
        _OPTIONS_OF[name](verb)
        _shared(verb, name)
    options = parser.parse_args(arguments, namespace=BenchmarkOptions(command=command))
    options.variants = [parse_variant(text) for text in getattr(options, "ours", ())]
    known = {"train": TRAIN_PEERS, "generate": GENERATE_PEERS, "serve": SERVE_PEERS}.get(options.verb)
    if known is not None:
        options.against = choose_peers(options.names, known=known, nanogpt_dir=options.nanogpt_dir)
    elif options.nanogpt_dir is not None:
        check_nanogpt(options.nanogpt_dir)
    return options


_AGAINST = "programs to compare with, comma-separated, or all: "


def _train(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--shape", default="small", choices=("small", "large"), help="experiment bench_SHAPE (small)")
    add("--against", dest="names", default="", help=_AGAINST + ", ".join(TRAIN_PEERS))
    add(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="OVERRIDE",
        help="config override for all programs; repeatable",
    )
    _own_variants(parser)


def _own_variants(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--ours", action="append", default=[], metavar="LABEL=OVERRIDES", help="one more variant of ours; repeatable")
    add("--steps", type=at_least(1), help="optimizer steps of a trial (as in the experiment)")


def _to_loss(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--experiment", default="shakespeare_char", help="experiment of ours (shakespeare_char)")
    add(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="OVERRIDE",
        help="config override for ours; repeatable",
    )
    add("--seed", type=int, default=1337, help="seed of our first round; each further round adds 1 (1337)")


def _generate(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    which = parser.add_mutually_exclusive_group()
    shapes = ("10m", "124m", "135m")
    which.add_argument("--shape", default="10m", choices=shapes, help="random weights; 135m is SmolLM2's shape (10m)")
    which.add_argument("--model", help="a run or checkpoint directory instead, such as smollm2")
    add("--against", dest="names", default="", help=_AGAINST + ", ".join(GENERATE_PEERS))
    add(
        "--precision",
        type=_precisions,
        default="bf16",
        help="precisions of ours, as in generate.py, or int8 and int4 (lcp compress); comma-separated (bf16)",
    )
    add("--batch", type=numbers(1), default="1", help="batch sizes of ours, such as 1,4,16 (1)")
    add("--prompt_tokens", type=at_least(1), default=16, help="tokens of the prompt (16)")
    add("--new_tokens", type=at_least(2), default=200, help="tokens of a generation (200)")
    add("--repeats", type=at_least(1), default=3, help="generations of a trial, after one that warms up (3)")


def _serve(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--shape", default="10m", choices=("10m", "124m"), help="the model (10m)")
    add("--against", dest="names", default="", help=_AGAINST.replace("programs", "servers") + ", ".join(SERVE_PEERS))
    add(
        "--streams",
        type=numbers(1),
        default="1,8,32",
        help="numbers of concurrent streams, each measured in every round (1,8,32)",
    )
    add("--requests", type=at_least(1), default=2, help="requests that each stream sends, one after another (2)")
    add("--prompt_tokens", type=at_least(1), default=16, help="tokens of the prompt (16)")
    add("--new_tokens", type=at_least(1), default=200, help="tokens of an answer (200)")
    parser.set_defaults(repeats=1, model=None)


def _ladder(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--rungs", type=_rungs, default="124m,1b", help="comma-separated (124m,1b)")
    add("--litgpt", action="store_true", help="compare with litgpt pretrain too")
    _own_variants(parser)
    parser.set_defaults(overrides=[], threads=None, device="cuda")


def _loss_memory(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--vocab", type=at_least(2), default=128_256, help="vocabulary size (128256)")
    add("--tokens", type=at_least(1), default=4096, help="tokens of a batch (4096)")
    add("--width", type=at_least(1), default=512, help="n_embd (512)")
    add(
        "--chunks",
        type=numbers(0),
        default="0,512,128",
        help="values of trainer.loss_chunk_size, 0 for no chunks (0,512,128)",
    )


def _growth(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    contexts, vocabularies = "256,512,1024,2048,4096,8192", "8192,16384,32768,65536,131072"
    add("--steps", type=at_least(2), default=10, help="training steps, and decoded tokens, of a trial (10)")
    add("--contexts", type=numbers(1), default=contexts, help=f"tokens before a decoded one ({contexts})")
    add("--vocabularies", type=numbers(2), default=vocabularies, help=f"vocabulary sizes ({vocabularies})")
    parser.set_defaults(device="cpu")


def _gpu(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--minutes", type=at_least(1), default=10, help="time limit; stages that do not fit are left out (10)")
    add("--dry_run", action="store_true", help="on the CPU with tiny shapes, without judging speed")
    parser.set_defaults(against=(), threads=None, model=None)


_OPTIONS_OF: dict[str, Callable[[argparse.ArgumentParser], None]] = {
    "train": _train,
    "to-loss": _to_loss,
    "generate": _generate,
    "serve": _serve,
    "ladder": _ladder,
    "ceiling": lambda parser: None,
    "loss-memory": _loss_memory,
    "growth": _growth,
    "gpu": _gpu,
}


def _shared(parser: argparse.ArgumentParser, verb: str) -> None:
    add = parser.add_argument
    if verb in ("train", "to-loss", "generate", "ladder", "gpu"):
        add("--nanogpt_dir", type=Path, metavar="FOLDER", help="a clone of nanoGPT")
        add("--trial_timeout", type=float, default=1800.0, metavar="SECONDS", help="for one trial (1800)")
        hidden = argparse.SUPPRESS
        add("--lap_timeout", dest="trial_timeout", type=float, default=hidden, help=hidden)  # its old name
    else:
        parser.set_defaults(nanogpt_dir=None)
    if verb not in ("ceiling", "gpu"):
        add("--rounds", type=at_least(1), default=3, help="trials of each program (3)")
    if verb not in ("ladder", "gpu"):
        add("--threads", type=at_least(1), help="CPU threads of every program (all cores)")
    if verb not in ("ladder", "to-loss", "gpu", "growth"):
        add("--device", default="cpu", choices=("cpu", "cuda"), help="where to compute (cpu)")
    add(
        "--out",
        type=Path,
        metavar="FILE",
        help="JSON file to write; a chart is drawn next to it (metrics/benchmark-*.json)",
    )
    add(
        "--keep",
        type=Path,
        metavar="FOLDER",
        help="new folder for the files that the processes write; otherwise they are deleted",
    )


def at_least(least: int) -> Callable[[str], int]:
    """An argparse type: a whole number from `least`."""

    def number(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} given, a whole number from {least} expected")
        return int(text)

    return number


def numbers(least: int) -> Callable[[str], tuple[int, ...]]:
    """An argparse type: different whole numbers from `least`, separated by commas."""

    def several(text: str) -> tuple[int, ...]:
        parts = [part.strip() for part in text.split(",")]
        if not all(part.isdecimal() and int(part) >= least for part in parts) or len({*map(int, parts)}) < len(parts):
            raise argparse.ArgumentTypeError(f"{text!r} given, different whole numbers from {least} expected")
        return tuple(int(part) for part in parts)

    return several


def _precisions(text: str) -> tuple[str, ...]:
    return _names(text, known=("auto", "32", "bf16", "16", "int8", "int4"))


def _rungs(text: str) -> tuple[str, ...]:
    return _names(text, known=("124m", "1b"))


def _names(text: str, *, known: Sequence[str]) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if not names or not set(names) <= set(known):
        raise argparse.ArgumentTypeError(f"{text!r} given, any of {', '.join(known)} expected")
    return names
