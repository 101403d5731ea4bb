"""Speed and memory of generating, each trial in a new process; the trials of several models alternate.

`python -m litgpt_core.compression.speed DIRECTORY TOKENS` is such a process: it prints one line of JSON.
"""

from __future__ import annotations

import json
import logging
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from litgpt_core.core.errors import EnvironmentProblem

TIMEOUT_S = 900


@dataclass
class Trials:
    """What the trials of one model measured, round by round."""

    tokens_per_s: list[float] = field(default_factory=list)
    """Of decoding, after the first token."""
    peak_mb: list[float] = field(default_factory=list)
    """Peak resident memory of the process, 10^6 bytes."""
    decoder: str = ""
    """kernel, eager or compiled."""
    threads: int = 0


Measure = Callable[[Path, int], dict[str, float | str]]


def measure_speed(
    directories: Sequence[Path], *, rounds: int, tokens: int, measure: Measure | None = None
) -> list[Trials]:
    """Generate with every model once per round, each time in a new process; the first model of a round alternates.

    Args:
        directories: Checkpoint directories.
        rounds: At least 5 are needed to claim anything.
        tokens: To generate in a trial.
        measure: What measures one directory; None: a new process.

    Raises:
        EnvironmentProblem: A process failed or took longer than `TIMEOUT_S`.
    """
    found = [Trials() for _ in directories]
    for number in range(rounds):
        for place in range(len(directories)):
            index = (place + number) % len(directories)
            result = (measure or run_trial)(directories[index], tokens)
            trials = found[index]
            trials.tokens_per_s.append(float(result["tokens_per_s"]))
            trials.peak_mb.append(float(result["peak_mb"]))
            trials.decoder, trials.threads = str(result["decoder"]), int(result["threads"])
    return found


def run_trial(directory: Path, tokens: int) -> dict[str, float | str]:
    """One generation in a new process."""
    command = [sys.executable, "-P", "-m", "litgpt_core.compression.speed", str(directory), str(tokens)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired as problem:
        raise EnvironmentProblem(f"Generating with {directory} took longer than {TIMEOUT_S} s.") from problem
    if done.returncode:
        raise EnvironmentProblem(f"Generating with {directory} failed: {done.stderr.strip()[-400:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def generate_once(directory: Path, tokens: int) -> dict[str, float | str]:
    """Load, decode greedily, and say how fast and in how much memory."""
    import torch

    from litgpt_core.generation.engine import Engine
    from litgpt_core.generation.sampling_settings import SamplingSettings

    engine = Engine.from_directory(directory, device="cpu")
    tokens = min(tokens, engine.model.config.block_size - 2)
    prompt, greedy = engine.document_start(), SamplingSettings(temperature=0)
    engine.generate(prompt, max_new_tokens=2, sampling=greedy, stop_ids=())
    begin = time.perf_counter()
    first = 0.0
    for count, _ in enumerate(engine.generate_stream(prompt, max_new_tokens=tokens, sampling=greedy, stop_ids=())):
        if count == 0:
            first = time.perf_counter() - begin
    seconds = time.perf_counter() - begin - first
    with engine.decoding() as (chosen, _):
        decoder = chosen.name
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    threads = torch.get_num_threads()
    return {
        "tokens_per_s": (tokens - 1) / seconds,
        "peak_mb": peak / 1e6,
        "decoder": decoder,
        "threads": threads,
    }


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    sys.stdout.write(json.dumps(generate_once(Path(sys.argv[1]), int(sys.argv[2]))) + "\n")
