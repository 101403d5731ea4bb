"""`benchmark.py serve`: one stream against many, on one server, in turns."""

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
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from rich.box import SIMPLE_HEAD
from rich.table import Table

from benchmarks.generating import GenerateRace, make_work
from benchmarks.load_client import Answered, load
from benchmarks.processes import thread_variables
from benchmarks.provenance import measure_ceiling, provenance
from benchmarks.record import FORMAT, spread
from benchmarks.workload import available_threads
from litgpt_core.core.errors import ConfigError, EnvironmentProblem
from litgpt_core.core.machine import PROJECT_DIR

logger = logging.getLogger(__name__)

SERVE = PROJECT_DIR / "scripts" / "serve.py"
START_S = 180.0


@dataclass(frozen=True, kw_only=True)
class LoadTest:
    """What the command line says."""

    shape: str = "10m"
    streams: tuple[int, ...] = (1, 32)
    """How many at once."""
    requests: int = 2
    """On every stream, one after the other."""
    prompt_tokens: int = 16
    new_tokens: int = 200
    rounds: int = 3
    threads: int | None = None
    """Of the server."""
    device: str = "cpu"

    def __post_init__(self) -> None:
        if not self.streams or min(self.streams) < 1 or len(set(self.streams)) != len(self.streams):
            raise ConfigError(f"--streams {self.streams}", needed="different whole numbers from 1")
        for name in ("requests", "rounds", "new_tokens", "prompt_tokens"):
            if getattr(self, name) < 1:
                raise ConfigError(f"--{name} {getattr(self, name)}", needed="1 or more")


def run_load_test(test: LoadTest, *, folder: Path, command: str) -> dict[str, Any]:
    """Serve a model of random weights from `folder`, and load it.

    Returns:
        Per number of streams: tokens per second over all of them, seconds to the first text, seconds of a request,
        longest wait between two pieces; and what many streams reach of one, formed within each round.

    Raises:
        LightComputeError: Anything the user can mend, and a server that did not answer everything.
    """
    threads = test.threads or available_threads()
    race = GenerateRace(
        against=(), shape=test.shape, prompt_tokens=test.prompt_tokens, new_tokens=test.new_tokens, device=test.device
    )
    work = make_work(race, folder=folder, threads=threads)
    ceiling = measure_ceiling(folder, device=test.device, threads=threads)
    origin = provenance(command)
    laps: list[dict[str, Any]] = []
    with _server(work.checkpoint, folder=folder, threads=threads, test=test) as (port, process):
        _lap(port, test, streams=1, work=work.made, number=-1)  # warms up: builds the kernel, loads what is lazy
        for number in range(test.rounds):
            for streams in test.streams:
                laps.append(_lap(port, test, streams=streams, work=work.made, number=number))
                logger.info("round %d, %d streams: %.0f tokens/s", number + 1, streams, laps[-1]["tokens_per_s"])
        memory_mb = process.memory_info().rss / 1e6
    return {
        "format": FORMAT,
        "kind": "serve",
        **origin,
        "work": {
            "name": test.shape,
            "n_params": work.made["n_params"],
            "prompt_tokens": test.prompt_tokens,
            "new_tokens": test.new_tokens,
            "requests_per_stream": test.requests,
            "threads": threads,
            "device": test.device,
        },
        "environment": ceiling.get("environment"),
        "server_memory_mb": memory_mb,
        "levels": [_summary(streams, laps) for streams in test.streams],
        "ratios": {str(streams): spread(_ratios(laps, streams, test.streams[0])) for streams in test.streams[1:]},
        "laps": laps,
    }


def _lap(port: int, test: LoadTest, *, streams: int, work: dict[str, Any], number: int) -> dict[str, Any]:
    bodies: list[list[dict[str, object]]] = [
        [
            {
                "prompt": work["prompt_ids"],
                "max_tokens": test.new_tokens,
                "seed": 1000 * stream + request,
                "ignore_eos": True,
            }
            for request in range(test.requests)
        ]
        for stream in range(streams)
    ]
    answers = asyncio.run(load(port, bodies))
    return {"round": number, "streams": streams, **measure(answers)}


def measure(answers: Sequence[Answered]) -> dict[str, Any]:
    """Figures of one lap: tokens per second from the first question to the last answer, and seconds of waiting."""
    seconds = max(one.ended for one in answers) - min(one.asked for one in answers)
    first = [one.first - one.asked for one in answers]
    whole = [one.ended - one.asked for one in answers]
    return {
        "answers": len(answers),
        "tokens": sum(one.tokens for one in answers),
        "seconds": seconds,
        "tokens_per_s": sum(one.tokens for one in answers) / seconds,
        "first_text_s": {"p50": statistics.median(first), "p99": percentile(first, 99)},
        "answer_s": {"p50": statistics.median(whole), "p99": percentile(whole, 99)},
        "longest_gap_s": max((gap for one in answers for gap in one.gaps), default=0.0),
    }


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that at least `percent` of all do not exceed."""
    return sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)]


def _summary(streams: int, laps: Sequence[dict[str, Any]]) -> dict[str, Any]:
    own = [lap for lap in laps if lap["streams"] == streams]
    return {
        "streams": streams,
        "tokens_per_s": spread([lap["tokens_per_s"] for lap in own]),
        "first_text_p50_s": spread([lap["first_text_s"]["p50"] for lap in own]),
        "first_text_p99_s": spread([lap["first_text_s"]["p99"] for lap in own]),
        "answer_p50_s": spread([lap["answer_s"]["p50"] for lap in own]),
        "answer_p99_s": spread([lap["answer_s"]["p99"] for lap in own]),
        "longest_gap_s": spread([lap["longest_gap_s"] for lap in own]),
    }


def _ratios(laps: Sequence[dict[str, Any]], streams: int, base: int) -> list[float]:
    rates = {(lap["round"], lap["streams"]): lap["tokens_per_s"] for lap in laps}
    return [rate / rates[number, base] for (number, at_once), rate in rates.items() if at_once == streams]


@contextlib.contextmanager
def _server(checkpoint: Path, *, folder: Path, threads: int, test: LoadTest) -> Iterator[tuple[int, psutil.Process]]:
    """A server's port and process; it is ended with the block."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    slots = ("--slots", str(max(test.streams)), "--max-tokens", str(test.new_tokens), "--max_new_tokens", "1")
    command = [sys.executable, str(SERVE), str(checkpoint), "--port", str(port), "--no-chat-log", *slots]
    log = folder / "server.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*command, "--device", test.device, "--precision", "bf16"],
            cwd=folder,
            stdout=out,
            stderr=subprocess.STDOUT,
            env={**os.environ, **thread_variables(threads)},
        )
    try:
        deadline = time.monotonic() + START_S
        while not _answers(port):
            if process.poll() is not None or time.monotonic() > deadline:
                said = log.read_text(encoding="utf-8", errors="replace").strip()[-2000:]
                raise EnvironmentProblem(f"The server did not start:\n{said}", needed="a server that answers")
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


def load_table(record: dict[str, Any]) -> Table:
    """For the terminal."""
    work = record["work"]
    title = f"serve {work['name']}: {work['n_params']:,} parameters, answers of {work['new_tokens']} tokens"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD)
    table.add_column("streams", justify="right")
    for name in ("tokens/s", "slowest–fastest", "of one", "first text p50 / p99", "answer p50 / p99", "longest gap"):
        table.add_column(name, justify="right")
    for level in record["levels"]:
        rate, ratio = level["tokens_per_s"], record["ratios"].get(str(level["streams"]))
        table.add_row(
            str(level["streams"]),
            f"{rate['median']:,.0f}",
            f"{rate['min']:,.0f}–{rate['max']:,.0f}",
            f"{ratio['median']:.2f}x" if ratio else "",
            f"{level['first_text_p50_s']['median']:.3f} / {level['first_text_p99_s']['median']:.3f} s",
            f"{level['answer_p50_s']['median']:.2f} / {level['answer_p99_s']['median']:.2f} s",
            f"{level['longest_gap_s']['median']:.3f} s",
        )
    return table
