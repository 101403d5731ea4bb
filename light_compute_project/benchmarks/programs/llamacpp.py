"""llama.cpp, through the wheel of xllamacpp."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from benchmarks.child import child_spec, read_generations
from benchmarks.runner import RunSpec

if TYPE_CHECKING:
    from benchmarks.generating import GenerateWork


def generate(work: GenerateWork, *, label: str, kind: str) -> RunSpec:
    """llama.cpp on a GGUF file of this kind, f16, q8_0 or q4_0."""
    return child_spec(
        "llamacpp:generate",
        {**work.job(), "kind": kind.upper()},
        label=label,
        describes=f"llama.cpp through xllamacpp's wheel, {kind}",
        read=partial(read_generations, precision=kind, name=label),
    )
