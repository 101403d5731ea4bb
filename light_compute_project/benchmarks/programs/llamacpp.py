"""llama.cpp, through the wheel of xllamacpp."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.runner import RunSpec

if TYPE_CHECKING:
    from benchmarks.generating import GenerateWork


def generate(work: GenerateWork, *, label: str, kind: str) -> RunSpec:
    """llama.cpp on a GGUF file of this kind, f16 or q8_0."""
    return work.child_spec(
        "llamacpp:generate",
        label=label,
        precision=kind,
        settings={"kind": kind.upper()},
        describes=f"llama.cpp through xllamacpp's wheel, gpt2 architecture, {kind}",
    )
