"""Our engine on a checkpoint: at batch 1 as scripts/generate.py uses it, above that as scripts/serve.py does."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from benchmarks.children.timing import time_generations

COMPRESSED = ("int8", "int4")
"""Precisions that are recipes of `lcp compress`."""


def compressed(checkpoint: Path, *, recipe: str) -> Path:
    """The checkpoint made smaller by a recipe, in the current folder."""
    from litgpt_core.compression.apply import compress
    from litgpt_core.compression.recipe import load_recipe

    return compress(checkpoint, load_recipe(recipe), Path(recipe)).directory


def generate(job: dict[str, Any]) -> dict[str, Any]:
    """Load, generate greedily, time."""
    from litgpt_core.generation import Engine, SamplingSettings

    many, checkpoint, dtype = job["batch"] > 1, Path(job["checkpoint"]), job["dtype"]
    if dtype in COMPRESSED:
        checkpoint, dtype = compressed(checkpoint, recipe=dtype), "bf16"
        job["spawned_at"] = time.time()  # starting time is that of the compressed model
    engine = Engine.from_directory(checkpoint, device=job["device"], dtype=dtype, packed_weights=many)
    greedy = SamplingSettings(temperature=0.0)

    def tokens(count: int) -> int:
        if not many:
            stream = engine.generate_stream(
                job["prompt_ids"], max_new_tokens=count, sampling=greedy, seed=1, stop_ids=()
            )
            return sum(1 for _ in stream)
        prompts = [job["prompt_ids"]] * job["batch"]
        sequences = engine.generate_batch(prompts, max_new_tokens=count, sampling=greedy, seed=1, stop_ids=())
        return sum(len(sequence) for sequence in sequences)

    found = time_generations(tokens, new_tokens=job["new_tokens"], repeats=job["repeats"], spawned_at=job["spawned_at"])
    return {**found, "batch": job["batch"]}
