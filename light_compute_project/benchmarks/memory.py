"""`benchmark.py loss-memory`: what the loss over a large vocabulary holds at once, with and without `loss_chunk_size`.

Each variant in a process of its own, because a process' peak never falls again.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.child import child_command, child_result
from benchmarks.processes import run_measured, thread_variables
from benchmarks.race import order_of_round
from benchmarks.record import FORMAT, spread
from benchmarks.workload import available_threads
from litgpt_core.core.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class LossMemory:
    """What the command line says."""

    vocabulary: int = 128_256
    """Columns of the head; 128,256 is Llama 3's."""
    tokens: int = 4096
    """Tokens of a batch, B * T."""
    width: int = 512
    """n_embd."""
    chunk_sizes: tuple[int, ...] = (0, 512, 128)
    """Variants of trainer.loss_chunk_size; 0 holds everything."""
    rounds: int = 3
    threads: int | None = None
    device: str = "cpu"

    def __post_init__(self) -> None:
        least = {"vocabulary": 2, "tokens": 1, "width": 1, "rounds": 1}
        for name, bound in least.items():
            if getattr(self, name) < bound:
                raise ConfigError(f"{name} {getattr(self, name)}", needed=f"{bound} or more")
        if not self.chunk_sizes or min(self.chunk_sizes) < 0 or len(set(self.chunk_sizes)) != len(self.chunk_sizes):
            raise ConfigError(f"--chunks {self.chunk_sizes}", needed="different whole numbers, 0 or more")


def measure_loss_memory(settings: LossMemory, *, folder: Path, provenance: dict[str, Any]) -> dict[str, Any]:
    """Run every variant in every round; the JSON.

    Args:
        settings: What the command line says.
        folder: An empty folder that the caller removes.
        provenance: What `provenance.provenance` made.
    """
    threads = settings.threads or available_threads()
    found: dict[int, list[dict[str, Any]]] = {chunk: [] for chunk in settings.chunk_sizes}
    for index in range(settings.rounds):
        for label in order_of_round([str(chunk) for chunk in settings.chunk_sizes], index):
            place = folder / f"chunk-{label}-{index + 1}"
            place.mkdir(parents=True)
            job = {
                "vocabulary": settings.vocabulary,
                "tokens": settings.tokens,
                "width": settings.width,
                "chunk_size": int(label),
                "threads": threads,
                "device": settings.device,
            }
            run_measured(
                child_command("child_loss_memory", job, folder=place),
                folder=place,
                environment=thread_variables(threads),
                timeout_s=600,
                name=f"loss_chunk_size={label}",
            )
            found[int(label)].append(child_result(place, name=f"loss_chunk_size={label}"))
    names = ("peak_mb", "rise_mb", "seconds", "loss")
    return {
        "format": FORMAT,
        "kind": "loss-memory",
        **provenance,
        "vocabulary": settings.vocabulary,
        "tokens": settings.tokens,
        "width": settings.width,
        "threads": threads,
        "device": settings.device,
        "environment": found[settings.chunk_sizes[0]][0]["environment"],
        "variants": [
            {"chunk_size": chunk, **{name: spread([lap[name] for lap in laps]) for name in names}, "laps": laps}
            for chunk, laps in found.items()
        ],
    }
