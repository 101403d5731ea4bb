"""`benchmark.py serve`: one stream and many streams by turns, on one server with a model of random weights."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from benchmarks.generating import generate_work
from benchmarks.load_client import StreamedAnswer, load
from benchmarks.options import BenchmarkOptions
from benchmarks.processes import child_environment
from benchmarks.provenance import measure_ceiling, provenance
from benchmarks.record import FORMAT, round_ratios, spread
from litgpt_core.core.checkout import PROJECT_DIR
from litgpt_core.core.errors import EnvironmentProblem

logger = logging.getLogger("litgpt_core.benchmarks")  # below the logger that every command configures

SERVE = PROJECT_DIR / "scripts" / "serve.py"
START_S = 180.0
"""Seconds for the server to start."""


def run_serving(options: BenchmarkOptions, *, folder: Path) -> dict[str, Any]:
    """Serve a model of random weights from `folder`, an empty folder that the caller removes, and load it.

    Returns:
        The JSON. For each number of streams: tokens per second over all of them, seconds to the first text, seconds of
        a request, the longest gap between two chunks; and the rate of many streams over that of the first number
        named, within each round.

    Raises:
        LightComputeError: A mistake of the user's, or a server that did not answer every request.
    """
    work = generate_work(options, folder=folder)
    ceiling = measure_ceiling(folder, device=options.device, threads=work.threads)
    origin = provenance(options.command)
    command = [sys.executable, str(SERVE), str(work.checkpoint), "--device", options.device, "--precision", "bf16"]
    command += ["--slots", str(max(options.streams)), "--max_tokens", str(options.new_tokens), "--max_new_tokens", "1"]
    trials: list[dict[str, Any]] = []
    with _server([*command, "--no_chat_log"], folder=folder, threads=work.threads) as (port, process):
        _trial(port, options, streams=1, work=work.made, number=-1)  # warms up: builds the kernel, completes imports
        for number in range(options.rounds):
            for streams in options.streams:
                trials.append(_trial(port, options, streams=streams, work=work.made, number=number))
                rate = trials[-1]["tokens_per_s"]
                logger.info("round %d, streams: %d, %.0f tokens/s", number + 1, streams, rate)
        memory_mb = process.memory_info().rss / 1e6
    return {
        "format": FORMAT,
        "kind": "serve",
        **origin,
        "work": {
            "name": options.shape,
            "n_params": work.made["n_params"],
            "prompt_tokens": options.prompt_tokens,
            "new_tokens": options.new_tokens,
            "requests_per_stream": options.requests,
            "threads": work.threads,
            "device": options.device,
        },
        "environment": ceiling.get("environment"),
        "server_memory_mb": memory_mb,
        **summary(trials, options.streams),
        "laps": trials,
    }


def _trial(
    port: int, options: BenchmarkOptions, *, streams: int, work: Mapping[str, Any], number: int
) -> dict[str, Any]:
    request = {"prompt": work["prompt_ids"], "max_tokens": options.new_tokens, "ignore_eos": True}
    bodies: list[list[dict[str, object]]] = [
        [{**request, "seed": 1000 * stream + index} for index in range(options.requests)] for stream in range(streams)
    ]
    return {"round": number, "streams": streams, **measure(asyncio.run(load(port, bodies)))}


def measure(answers: Sequence[StreamedAnswer]) -> dict[str, Any]:
    """One trial's numbers: tokens per second from the first request to the end of the last answer, and latencies."""
    seconds = max(one.ended for one in answers) - min(one.sent for one in answers)
    tokens = sum(one.tokens for one in answers)
    first = [one.first - one.sent for one in answers]
    whole = [one.ended - one.sent for one in answers]
    return {
        "answers": len(answers),
        "tokens": tokens,
        "seconds": seconds,
        "tokens_per_s": tokens / seconds,
        "first_text_s": {"p50": statistics.median(first), "p99": percentile(first, 99)},
        "answer_s": {"p50": statistics.median(whole), "p99": percentile(whole, 99)},
        "longest_gap_s": max((gap for one in answers for gap in one.gaps), default=0.0),
    }


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that is not exceeded by at least `percent` of all."""
    return sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)]


def summary(trials: Sequence[Mapping[str, Any]], streams: Sequence[int]) -> dict[str, Any]:
    """`levels`, one for each number of streams, and `ratios` of their rates to that of the first number."""
    rates = {(str(trial["streams"]), trial["round"]): trial["tokens_per_s"] for trial in trials}
    levels = []
    for number in streams:
        own = [trial for trial in trials if trial["streams"] == number]
        level: dict[str, Any] = {"streams": number, "tokens_per_s": spread([trial["tokens_per_s"] for trial in own])}
        for name in ("first_text", "answer"):
            for percent in ("p50", "p99"):
                level[f"{name}_{percent}_s"] = spread([trial[f"{name}_s"][percent] for trial in own])
        levels.append({**level, "longest_gap_s": spread([trial["longest_gap_s"] for trial in own])})
    base, *others = (str(number) for number in streams)
    ratios = {number: round_ratios(rates, number, base) for number in others}
    return {"levels": levels, "ratios": ratios}


@contextlib.contextmanager
def _server(command: Sequence[str], *, folder: Path, threads: int) -> Iterator[tuple[int, psutil.Process]]:
    """The port and process of a server, which is ended with the block."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    log = folder / "server.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*command, "--port", str(port)],
            cwd=folder,
            stdout=out,
            stderr=subprocess.STDOUT,
            env={**os.environ, **child_environment(threads)},
        )
    try:
        deadline = time.monotonic() + START_S
        while not _answers(port):
            if process.poll() is not None or time.monotonic() > deadline:
                output = log.read_text(encoding="utf-8", errors="replace").strip()[-2000:]
                raise EnvironmentProblem(f"The server did not start:\n{output}", needed="a server that answers")
            time.sleep(0.1)
        yield port, psutil.Process(process.pid)
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _answers(port: int) -> bool:
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
    except OSError:
        return False
    return True
