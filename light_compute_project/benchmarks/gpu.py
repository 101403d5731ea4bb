"""`benchmark.py gpu`: what a person with a GPU runs once. Ten minutes, one JSON, and a page that says what held.

    checks       lcp doctor --gpu: numbers, steps, resume, decoding, compilation, memory
    resume       a run of the smoke experiment, stopped and resumed, against the undisturbed one
    124m, 1b     training speed (MFU), compile time, recompilations, peak memory against the planner; nanoGPT if given
    decoding     tokens per second of one stream and of 32
    several      with two or more GPUs: the 124m step under DDP and FSDP

A stage that does not fit into the remaining minutes is left out and said to be. `--dry_run` does the same on the CPU
with tiny shapes, where no speed is judged: a rehearsal.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import logging
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.comparison import run_comparison
from benchmarks.generating import run_generation
from benchmarks.options import BenchmarkOptions
from benchmarks.peers import TRAIN_PEERS
from benchmarks.processes import available_threads, child_environment, run_measured
from benchmarks.programs import ours
from benchmarks.provenance import provenance
from benchmarks.training import check_gpu, train_work
from litgpt_core.config.compose import load
from litgpt_core.core.checkout import PROJECT_DIR
from litgpt_core.core.command_line import child_command
from litgpt_core.core.errors import LightComputeError
from litgpt_core.core.files import write_atomically, write_json
from litgpt_core.planning.memory import memory
from litgpt_core.planning.recipe import DeviceLayout, recipe_of

logger = logging.getLogger("litgpt_core.benchmarks")

LEAST_MFU = {"gpu_124m": 0.50, "gpu_1b": 0.55}
LEAST_RATIO = 1.3
"""Tokens per second of ours over nanoGPT's, both compiled, on the same card."""
MEMORY_BOUND, RESUME_BOUND, SCALING = 0.10, 1e-3, 0.8
"""Peak above the estimate; losses after a resume, relative; of the ideal speed of several GPUs."""
EXACT = ("step", "tokens", "train_loss", "val_loss", "lr", "grad_norm")


@dataclass(frozen=True, kw_only=True)
class Claim:
    """Something that was expected of the GPU, and what was found."""

    stage: str
    name: str
    expected: str
    found: str
    held: bool | None
    """None: not judged, or not measured."""


Stage = Callable[[BenchmarkOptions, Path], Iterator[Claim]]


def run_gpu(options: BenchmarkOptions, *, folder: Path) -> list[dict[str, Any]]:
    """Run all stages, write JSON and page, print the page; no records for the tables of the other verbs.

    Raises:
        EnvironmentProblem: There is no GPU, and `--dry_run` was not given.
    """
    began = time.monotonic()
    options = copy.copy(options)
    options.device, options.threads, options.rounds = "cpu" if options.dry_run else "cuda", available_threads(), 1
    options.variants, options.overrides, options.steps = [], [], 6 if options.dry_run else None
    name = "the CPU (a rehearsal)" if options.dry_run else check_gpu()
    claims: list[Claim] = []
    for stage, (seconds, work) in STAGES.items():
        left = 60 * options.minutes - (time.monotonic() - began)
        if seconds > left and not options.dry_run:
            claims.append(_left_out(stage, f"{left:.0f} s were left, about {seconds} s are needed"))
            continue
        place = folder / stage
        place.mkdir(parents=True)
        logger.info("%s ...", stage)
        claims += _carried_out(stage, work, options, place)
    record = {
        "kind": "gpu",
        "format": 1,
        "device": name,
        "seconds": round(time.monotonic() - began, 1),
        **provenance(options.command),
        "claims": [dataclasses.asdict(claim) for claim in claims],
    }
    out = options.out or PROJECT_DIR / "metrics" / (
        "benchmark-gpu-dry.json" if options.dry_run else "benchmark-gpu.json"
    )
    write_json(out, record)
    text = page(record)
    write_atomically(out.with_suffix(".md"), text)
    print(f"{text}\nwritten: {out} and {out.with_suffix('.md').name}")  # noqa: T201
    return []


def _carried_out(stage: str, work: Stage, options: BenchmarkOptions, folder: Path) -> list[Claim]:
    """A stage's claims; what it could not do is one more that did not hold."""
    claims: list[Claim] = []
    try:
        for claim in work(options, folder):
            claims.append(dataclasses.replace(claim, stage=stage))
    except LightComputeError as error:
        found = error.given.strip().splitlines()[-1]
        claims.append(Claim(stage=stage, name="runs to its end", expected="yes", found=found, held=False))
    return claims


def _left_out(stage: str, why: str) -> Claim:
    return Claim(stage=stage, name="measured", expected="", found=f"not measured: {why}", held=None)


def page(record: dict[str, Any]) -> str:
    """The record for people."""
    words = {True: "held", False: "**did not hold**", None: "–"}
    counts = {word: sum(claim["held"] is held for claim in record["claims"]) for held, word in words.items()}
    lines = [
        f"# GPU checks: {record['device']}",
        "",
        f"{counts['held']} held, {counts['**did not hold**']} did not, {counts['–']} were not judged, in "
        f"{record['seconds']:.0f} s. `{record['command']}`, {record['date']}, commit {record['git'].get('commit')}.",
        "",
        "| stage | what | expected | found | |",
        "|---|---|---|---|---|",
    ]
    for claim in record["claims"]:
        cells = [str(claim[key]).replace("|", "/").replace("\n", " ") for key in ("stage", "name", "expected", "found")]
        lines.append(f"| {' | '.join(cells)} | {words[claim['held']]} |")
    return "\n".join(lines) + "\n"


# ---- stages ----


def checks(options: BenchmarkOptions, folder: Path) -> Iterator[Claim]:
    """In this process."""
    from litgpt_core.doctor.gpu_checks import run_gpu_checks

    for result in run_gpu_checks(options.device):
        yield Claim(stage="", name=result.name, expected="as on the CPU", found=result.detail, held=result.passed)


def resume(options: BenchmarkOptions, folder: Path) -> Iterator[Claim]:
    """Two runs of the smoke experiment with dropout; the second is stopped in the middle and continued."""
    steps = 6 if options.dry_run else 40
    common = [
        "+experiment=smoke", "trainer=deterministic", "model.dropout=0.1", "logger=none", "trainer.log_interval=1",
        "trainer.sample_tokens=0", f"trainer.max_steps={steps}", f"trainer.eval_interval={steps // 2}",
        f"trainer.save_interval={steps // 2}", "trainer.eval_tokens=2048", f"trainer.accelerator={options.device}",
        f"data.cache_dir={(folder / 'data').as_posix()}",
    ]  # fmt: skip
    for arguments in (
        ["run.name=whole"],
        ["run.name=parted", f"trainer.stop_after={steps // 2}"],
        ["run.name=parted", "run.resume=true"],
    ):
        command = child_command("train", *common, *arguments)
        environment = child_environment(options.threads or 1)
        run_measured(command, folder=folder, environment=environment, timeout_s=options.trial_timeout, name="lcp train")
    expected, found = (_rows(folder / "runs" / name) for name in ("whole", "parted"))
    worst = max(
        (abs(a[key] - b[key]) / max(abs(a[key]), 1e-9) for a, b in zip(expected, found, strict=False) for key in EXACT
         if a[key] is not None and b[key] is not None),
        default=float("inf"),
    )  # fmt: skip
    same = len(expected) == len(found) == steps
    text = "bit by bit" if worst == 0 else f"largest difference {worst:.0e}"
    bound = f"{steps} rows, within {RESUME_BOUND:.0e}"
    yield Claim(stage="", name="stopped and resumed", expected=bound, found=text, held=same and worst <= RESUME_BOUND)


def _rows(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def rung(shape: str) -> Stage:
    """A stage of the ladder."""

    def train(options: BenchmarkOptions, folder: Path) -> Iterator[Claim]:
        options = copy.copy(options)
        options.shape = "small" if options.dry_run else shape
        work = train_work(options)
        peers = ("nanogpt-compiled",) if options.nanogpt_dir is not None and shape == "gpu_124m" else ()
        specs = [ours.train(work, overrides=["trainer.compile=false"] if options.dry_run else [])]
        specs += [TRAIN_PEERS[name](work, label=name) for name in peers]
        with _logged("recompiles"):
            record, trials = run_comparison("train", specs, options=options, work=work.facts(), folder=folder)
        own, measured = record["contestants"][0], trials[0].measurement
        rate, mfu = own["tokens_per_s"]["median"], own["mfu"]
        yield _speed(shape, f"{rate:,.0f} tokens/s", mfu, dry=options.dry_run)
        compile_s = measured.numbers.get("compile_s", 0.0)
        yield Claim(stage="", name="compile time", expected="", found=f"{compile_s:.0f} s", held=None)
        again = len(re.findall(r"Recompiling function", trials[0].process.output))
        yield Claim(stage="", name="recompilations", expected="0", found=str(again), held=again == 0)
        if "device_mb" in measured.numbers:
            yield _peak(list(work.arguments), measured.numbers["device_mb"] * 1e6)
        for name in peers:
            ratio = record["ratios"]["ours"][name]["median"]
            wanted = f">= {LEAST_RATIO}"
            yield Claim(stage="", name=f"over {name}", expected=wanted, found=f"{ratio:.2f}", held=ratio >= LEAST_RATIO)

    return train


def _speed(shape: str, rate: str, mfu: float | None, *, dry: bool) -> Claim:
    least = LEAST_MFU[shape]
    if dry or mfu is None:
        return Claim(stage="", name="speed", expected="", found=rate, held=None)
    found = f"{mfu:.1%} MFU, {rate}"
    return Claim(stage="", name="speed", expected=f">= {least:.0%} MFU", found=found, held=mfu >= least)


def _peak(arguments: Sequence[str], found: float) -> Claim:
    """Compiled steps keep less than the estimate, so only more is wrong."""
    config = load(arguments)
    shape = config.model.build(vocab_size=2)
    recipe = recipe_of(config, model=shape, precision="bf16-mixed", device="cuda")
    recipe = dataclasses.replace(recipe, micro_batch=config.trainer.batch.micro_batch)
    estimate = memory(recipe, DeviceLayout()).peak
    text = f"{found / 1e9:.2f} GB"
    held = found <= (1 + MEMORY_BOUND) * estimate
    return Claim(stage="", name="peak memory", expected=f"<= {estimate / 1e9:.2f} GB + 10 %", found=text, held=held)


def decoding(options: BenchmarkOptions, folder: Path) -> Iterator[Claim]:
    """The engine on a random model of 124M (dry: 10M) parameters."""
    options = copy.copy(options)
    options.shape, options.against, options.precision = ("10m" if options.dry_run else "124m"), (), ("bf16",)
    options.batch, options.prompt_tokens, options.repeats = ((1, 2) if options.dry_run else (1, 32)), 16, 2
    options.new_tokens = 8 if options.dry_run else 200
    record = run_generation(options, folder=folder)
    for one in record["contestants"]:
        rate = one["tokens_per_s"]["median"]
        yield Claim(stage="", name=one["label"], expected="", found=f"{rate:,.0f} tokens/s", held=None)


def several(options: BenchmarkOptions, folder: Path) -> Iterator[Claim]:
    """All GPUs of this machine on the 124m step; two processes of the CPU in a rehearsal."""
    import torch

    number = 2 if options.dry_run else torch.cuda.device_count()
    if number < 2:
        yield _left_out("several", "one GPU")
        return
    options = copy.copy(options)
    options.shape = "small" if options.dry_run else "gpu_124m"
    work = train_work(options)
    plain = ["trainer.compile=false"] if options.dry_run else []
    many = [*plain, f"trainer.devices={number}", f"trainer.global_batch_size={number * work.batch_size}"]
    alone = ours.train(work, label="one", overrides=plain)
    specs = [
        alone,
        *(ours.train(work, label=each, overrides=[*many, f"trainer.strategy={each}"]) for each in ("ddp", "fsdp")),
    ]
    record, _ = run_comparison("train", specs, options=options, work=work.facts(), folder=folder)
    rates = {one["label"]: one["tokens_per_s"]["median"] for one in record["contestants"]}
    for label in ("ddp", "fsdp"):
        times = rates[label] / rates["one"]
        share, text = times / number, f"{times:.2f} times one GPU's tokens/s on {number} GPUs"
        if options.dry_run:
            yield Claim(stage="", name=label, expected="", found="two processes train", held=None)
            continue
        yield Claim(stage="", name=label, expected=f">= {SCALING:.0%} per GPU", found=text, held=share >= SCALING)


class _logged:  # noqa: N801
    """While it lasts, child processes log what torch is asked to log."""

    def __init__(self, what: str) -> None:
        self.what, self.before = what, os.environ.get("TORCH_LOGS")

    def __enter__(self) -> None:
        os.environ["TORCH_LOGS"] = self.what

    def __exit__(self, *_: object) -> None:
        if self.before is None:
            del os.environ["TORCH_LOGS"]
        else:
            os.environ["TORCH_LOGS"] = self.before


STAGES: dict[str, tuple[int, Stage]] = {
    "checks": (45, checks),
    "resume": (75, resume),
    "124m": (100, rung("gpu_124m")),
    "1b": (170, rung("gpu_1b")),
    "decoding": (90, decoding),
    "several": (120, several),
}
"""Stage -> seconds that it may take, and what it does."""
