"""`benchmark.py growth`: how cost grows with the work, one plot each, from one command.

    a training step     over tokens per step, and over layers
    a decoded token     over the tokens in its context
    memory of the loss  over the vocabulary, with all tokens at once and in chunks

Every point is measured in processes of its own: once in each round, and the least counts, so that a slow minute of the
machine does not fall on one point alone. `straight` says how far the points are from the straight line with the
least relative error, so that a cost that grows faster than linearly is seen in the numbers too.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.child import run_child
from benchmarks.options import BenchmarkOptions
from benchmarks.processes import available_threads
from benchmarks.provenance import provenance
from benchmarks.record import FORMAT

logger = logging.getLogger("litgpt_core.benchmarks")  # below the logger that every command configures

TRAINING = ("+experiment=bench_small", "trainer.compile=false", "run.dir=runs")
BATCHES, LAYERS, LAYERS_BATCH = (16, 32, 64, 128), (2, 4, 8, 16), 32
"""Sequences of a step; layers, at that many sequences."""
DECODING = {"n_layer": 2, "n_head": 4, "n_embd": 256}
"""Keys and values of 8,192 tokens take 17 MB, which fit most processors' last cache; beyond it a token costs more."""
LOSS = {"tokens": 2048, "width": 128, "device": "cpu"}
CHUNK = 128
"""`trainer.loss_chunk_size` of the second curve."""


def run_growth(options: BenchmarkOptions, *, folder: Path) -> dict[str, Any]:
    """Measure every plot in `folder`, an empty folder that the caller removes; the JSON.

    Raises:
        EnvironmentProblem: A process failed.
    """
    threads = options.threads or available_threads()
    origin = provenance(options.command)
    plots = [
        *_training(options, folder, threads),
        _decoding(options, folder, threads),
        *_loss(options, folder, threads),
    ]
    return {
        "format": FORMAT,
        "kind": "growth",
        **origin,
        "threads": threads,
        "steps": options.steps,
        "rounds": options.rounds,
        "environment": plots[-1].pop("environment"),
        "plots": plots,
    }


def _training(options: BenchmarkOptions, folder: Path, threads: int) -> list[dict[str, Any]]:
    points = {f"batch-{size}": [f"trainer.global_batch_size={size}"] for size in BATCHES}
    points |= {f"layers-{n}": [f"trainer.global_batch_size={LAYERS_BATCH}", f"model.n_layer={n}"] for n in LAYERS}
    least = dict.fromkeys(points, math.inf)  # other programs only add to it
    for number in range(options.rounds):
        for point in reversed(points) if number % 2 else points:
            name = f"{point}-{number}"
            arguments = [*TRAINING, f"trainer.max_steps={options.steps}", f"trainer.threads={threads}"]
            job = {"overrides": [*arguments, f"run.name={name}", *points[point]]}
            found = run_child("bare_loop:train", job, folder=folder / name, threads=threads, name=name)
            least[point] = min(least[point], *found["seconds"])
            logger.info("round %d of %d, %s: %.1f ms a step", number + 1, options.rounds, point, 1000 * least[point])
    step = {"y": "seconds of a training step", "shape": "4 heads, 128 wide, context 64, eager"}
    by_batch = [least[f"batch-{size}"] for size in BATCHES]
    return [
        _plot("tokens per step", [64 * size for size in BATCHES], by_batch, **step),
        _plot("layers", LAYERS, [least[f"layers-{n}"] for n in LAYERS], **step),
    ]


def _decoding(options: BenchmarkOptions, folder: Path, threads: int) -> dict[str, Any]:
    contexts = sorted(options.contexts)
    job = {"model": DECODING, "positions": contexts, "repeats": options.steps, "threads": threads}
    rounds = []
    for number in range(options.rounds):
        place = folder / f"decode-{number}"
        rounds.append(run_child("growth:decode", job, folder=place, threads=threads, name="decoding")["seconds"])
    least = [min(taken) for taken in zip(*rounds, strict=True)]
    shape = f"{DECODING['n_layer']} layers, {DECODING['n_embd']} wide, bfloat16, CPU kernel"
    return _plot("tokens in the context", contexts, least, y="seconds of a decoded token", shape=shape)


def _loss(options: BenchmarkOptions, folder: Path, threads: int) -> list[dict[str, Any]]:
    """Memory beyond the head's weight and its gradient."""
    plots = []
    for chunk in (0, CHUNK):
        megabytes: list[float] = []
        found: dict[str, Any] = {}
        for size in options.vocabularies:
            job = {**LOSS, "vocabulary": size, "threads": threads, "chunk_size": chunk}
            name = f"vocabulary-{size}-{chunk}"
            found = run_child("loss_memory:measure", job, folder=folder / name, threads=threads, name=name)
            megabytes.append(found["rise_mb"] - size * LOSS["width"] * 4 / 1e6)  # type: ignore[operator]
        shape = f"{LOSS['tokens']:,} tokens, " + (f"{chunk} at a time" if chunk else "all at once")
        plots.append(
            _plot("vocabulary", options.vocabularies, megabytes, y="MB of the loss beyond the head", shape=shape)
        )
    plots[-1]["environment"] = found["environment"]
    return plots


def _plot(x: str, xs: Sequence[float], ys: Sequence[float], *, y: str, shape: str) -> dict[str, Any]:
    return {"x": x, "y": y, "shape": shape, "xs": list(xs), "ys": list(ys), "straight": straight_line(xs, ys)}


def straight_line(xs: Sequence[float], ys: Sequence[float]) -> dict[str, float]:
    """The line a + b x with the least sum of squared relative errors, the largest relative error, and the growth.

    Returns:
        `intercept`, `slope`, `largest_error`, and `exponent`, the slope of log y over log x between both ends: 1 for
        proportional growth, above it for faster growth.
    """
    import numpy as np

    x, y = np.asarray(xs, dtype=float), np.asarray(ys, dtype=float)
    scaled = np.stack([1 / y, x / y], axis=1)
    (intercept, slope), *_ = np.linalg.lstsq(scaled, np.ones(len(x)), rcond=None)
    errors = np.abs((intercept + slope * x) / y - 1)
    exponent = np.log(y[-1] / y[0]) / np.log(x[-1] / x[0])
    values = {"intercept": intercept, "slope": slope, "largest_error": errors.max(), "exponent": exponent}
    return {name: float(value) for name, value in values.items()}
