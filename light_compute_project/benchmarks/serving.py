"""`benchmark.py serve`: one stream and many streams by turns, on servers with the same model of random weights."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.generating import generate_work
from benchmarks.load_client import StreamedAnswer, load
from benchmarks.options import BenchmarkOptions
from benchmarks.peers import SERVE_PEERS
from benchmarks.processes import child_environment
from benchmarks.programs import ours
from benchmarks.provenance import measure_ceiling, provenance
from benchmarks.record import FORMAT, round_ratios, spread
from benchmarks.runner import order_of_round
from benchmarks.server_process import RunningServer, running

logger = logging.getLogger("litgpt_core.benchmarks")  # below the logger that every command configures

SAMPLING = {"temperature": 0.8, "top_k": 50, "top_p": 1.0, "min_p": 0.0}
"""Sent with every request, so that all servers sample alike."""


def run_serving(options: BenchmarkOptions, *, folder: Path) -> dict[str, Any]:
    """Serve a model of random weights from `folder`, an empty folder that the caller removes, and load every server.

    All servers run during the whole benchmark, and one is loaded at a time: in each round, for each number of streams,
    every server once, in rotating order.

    Returns:
        The JSON. For ours, and under `peers` for each other server and each number of streams: tokens per second over
        all of them, seconds to the first text, seconds of a request, the longest gap between two chunks; the rate of
        many streams over that of the first number named; and ours over each peer, within each round.

    Raises:
        LightComputeError: A mistake of the user's, or a server that did not answer every request.
    """
    work = generate_work(options, folder=folder)
    ceiling = measure_ceiling(folder, device=options.device, threads=work.threads)
    origin = provenance(options.command, peers=options.against)
    slots = max(options.streams)
    specs = [ours.serve(work, label="ours", slots=slots)]
    specs += [SERVE_PEERS[name](work, label=name, slots=slots) for name in options.against]
    with contextlib.ExitStack() as stack:
        environment = child_environment(work.threads)
        servers = {
            spec.label: stack.enter_context(running(spec, folder=folder / spec.label, environment=environment))
            for spec in specs
        }
        for server in servers.values():  # warms up: builds the kernel, completes imports
            _trial(server.port, options, streams=1, work=work.made, number=-1)
        trials = _rounds(servers, options, work=work.made)
        peaks = {label: server.peak_mb() for label, server in servers.items()}
    own = {spec.label: [trial for trial in trials if trial["server"] == spec.label] for spec in specs}
    return {
        "format": FORMAT,
        "kind": "serve",
        **origin,
        "work": {
            "name": options.shape,
            "n_params": work.made["n_params"],
            "flops_per_token": work.made["flops_per_token"],
            "prompt_tokens": options.prompt_tokens,
            "new_tokens": options.new_tokens,
            "requests_per_stream": options.requests,
            "threads": work.threads,
            "device": options.device,
        },
        "ceiling_gflops": ceiling.get("gflops"),
        "environment": ceiling.get("environment"),
        "describes": {spec.label: spec.describes for spec in specs},
        "server_memory_mb": peaks["ours"],
        **summary(own["ours"], options.streams),
        "peers": {
            label: {"server_memory_mb": peaks[label], **summary(own[label], options.streams)}
            for label in own
            if label != "ours"
        },
        "over_peers": over_peers(own, options.streams),
        "laps": trials,
    }


def _rounds(
    servers: Mapping[str, RunningServer], options: BenchmarkOptions, *, work: Mapping[str, Any]
) -> list[dict[str, Any]]:
    trials: list[dict[str, Any]] = []
    for number in range(options.rounds):
        for streams in options.streams:
            for label in order_of_round(list(servers), number):
                found = _trial(servers[label].port, options, streams=streams, work=work, number=number)
                trials.append({"server": label, **found})
                rate = found["tokens_per_s"]
                logger.info("round %d, %s, streams: %d, %.0f tokens/s", number + 1, label, streams, rate)
    return trials


def _trial(
    port: int, options: BenchmarkOptions, *, streams: int, work: Mapping[str, Any], number: int
) -> dict[str, Any]:
    request = {"prompt": work["prompt_ids"], "max_tokens": options.new_tokens, "ignore_eos": True, **SAMPLING}
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


def over_peers(trials: Mapping[str, Sequence[Mapping[str, Any]]], streams: Sequence[int]) -> dict[str, Any]:
    """Peer -> number of streams -> our rate over the peer's, and the peer's p99 to the first text over ours."""
    found: dict[str, Any] = {}
    for peer in (label for label in trials if label != "ours"):
        found[peer] = {}
        for number in streams:
            both = [(label, one) for label in ("ours", peer) for one in trials[label] if one["streams"] == number]
            rates = {(label, one["round"]): one["tokens_per_s"] for label, one in both}
            waits = {(label, one["round"]): one["first_text_s"]["p99"] for label, one in both}
            found[peer][str(number)] = {
                "tokens_per_s": round_ratios(rates, "ours", peer),
                "first_text_p99": round_ratios(waits, peer, "ours"),
            }
    return found
