"""llama.cpp, through the wheel of xllamacpp."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.child import child_command, child_spec, read_generations, run_child
from benchmarks.runner import RunSpec
from benchmarks.server_process import ServerSpec

if TYPE_CHECKING:
    from benchmarks.generating import GenerateWork


def generate(work: GenerateWork, *, label: str, kind: str) -> RunSpec:
    """llama.cpp on a GGUF file of this kind, f16, q8_0 or q4_0: random weights, or the checkpoint exported."""
    return child_spec(
        "llamacpp:generate",
        {**work.job(), "kind": kind, "random": work.random},
        label=label,
        describes=f"llama.cpp through xllamacpp's wheel, {kind}",
        read=partial(read_generations, precision=kind, name=label),
    )


def serve(work: GenerateWork, *, label: str, kind: str, slots: int) -> ServerSpec:
    """llama.cpp's server with continuous batching, on the checkpoint exported as a GGUF file of this kind."""

    def command(folder: Path, port: int) -> list[str]:
        file = folder / "model.gguf"
        export = {"checkpoint": str(work.checkpoint), "file": str(file), "kind": kind}
        run_child(
            "llamacpp:export", export, folder=folder / "export", threads=work.threads, name=f"exporting for {label}"
        )
        job = {"file": str(file), "slots": slots, "context": work.made["model"]["block_size"]}
        return child_command("llamacpp:serve", {**job, "threads": work.threads, "port": port}, folder=folder)

    return ServerSpec(
        label=label,
        describes=f"llama.cpp's server through xllamacpp's wheel, {slots} slots, the same model exported as {kind}",
        command=command,
    )
