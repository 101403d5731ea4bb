"""What `lcp compress` does and prints."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from litgpt_core import tokenizers
from litgpt_core.checkpoint import resolve
from litgpt_core.checkpoint.verification import weights_file
from litgpt_core.compression.apply import compress, default_target
from litgpt_core.compression.recipe import Recipe
from litgpt_core.compression.texts import find_domains


def compress_one(a: argparse.Namespace, recipe: Recipe) -> Iterator[str]:
    """Compress once; lines to print."""
    source = resolve(a.checkpoint)
    target = a.out or default_target(a.checkpoint, recipe.name)
    domains = find_domains(source, tokenizers.load(source), given=a.domain) if recipe.needs_text else None
    made = compress(
        source,
        recipe,
        target,
        domains=domains,
        calibration_tokens=a.calibration_tokens,
        with_dequantized=a.with_dequantized,
        force=a.force,
    )
    before, after = directory_bytes(source), directory_bytes(made.directory)
    sizes = f"{after / 1e6:.1f} MB instead of {before / 1e6:.1f} MB"
    yield f"{made.directory}: {recipe.name}, {sizes}, {made.seconds:.0f} s"
    yield from made.record["notes"]


def directory_bytes(directory: Path) -> int:
    """Bytes of the weights that the engine reads."""
    return weights_file(directory).stat().st_size
