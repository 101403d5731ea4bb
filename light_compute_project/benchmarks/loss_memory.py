"""`benchmark.py loss-memory`: peak memory of the loss over a large vocabulary, with and without `loss_chunk_size`.

Each variant runs in a process of its own, because the peak of a process never falls.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.child import run_child
from benchmarks.options import BenchmarkOptions
from benchmarks.processes import available_threads
from benchmarks.provenance import provenance
from benchmarks.record import FORMAT, spread
from benchmarks.runner import order_of_round


def run_loss_memory(options: BenchmarkOptions, *, folder: Path) -> dict[str, Any]:
    """Run every variant in every round, in `folder`, an empty folder that the caller removes; the JSON.

    Raises:
        EnvironmentProblem: A process failed.
    """
    threads = options.threads or available_threads()
    work = {
        "vocabulary": options.vocab,
        "tokens": options.tokens,
        "width": options.width,
        "threads": threads,
        "device": options.device,
    }
    origin = provenance(options.command)
    results: dict[int, list[dict[str, Any]]] = {chunk: [] for chunk in options.chunks}
    for index in range(options.rounds):
        for label in order_of_round([str(chunk) for chunk in options.chunks], index):
            result = run_child(
                "loss_memory:measure",
                {**work, "chunk_size": int(label)},
                folder=folder / f"chunk-{label}-{index + 1}",
                threads=threads,
                name=f"loss_chunk_size={label}",
            )
            results[int(label)].append(result)
    return {
        "format": FORMAT,
        "kind": "loss-memory",
        **origin,
        **work,
        "environment": results[options.chunks[0]][0]["environment"],
        "variants": [
            {
                "chunk_size": chunk,
                **{name: spread([one[name] for one in own]) for name in ("peak_mb", "rise_mb", "seconds", "loss")},
                "laps": own,
            }
            for chunk, own in results.items()
        ],
    }
