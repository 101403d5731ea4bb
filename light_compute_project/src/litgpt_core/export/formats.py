"""The formats that `lcp export` writes, each by its own package, and what is said about the result."""

from __future__ import annotations

from argparse import Namespace

FORMATS = ("huggingface", "compressed-tensors", "gguf", "onnx", "web", "python", "safetensors", "npz", "json")
TYPED = ("gguf", "onnx")
"""Formats with `--type`."""


def export(given: Namespace) -> list[str]:
    """Write the checkpoint and return the lines to print.

    Args:
        given: checkpoint, out, format, type, force, no_check, max_shard_gb: the options of `lcp export`.
    """
    writers = {
        "huggingface": _huggingface,
        "compressed-tensors": _huggingface,
        "gguf": _gguf,
        "onnx": _onnx,
        "web": _web,
    }
    return writers.get(given.format, _file)(given)


def _huggingface(given: Namespace) -> list[str]:
    from litgpt_core.export.huggingface.exporting import export_directory

    made = export_directory(
        given.checkpoint,
        given.out,
        force=given.force,
        max_shard_bytes=int((given.max_shard_gb or 5.0) * 1e9),
        packed=given.format == "compressed-tensors",
    )
    size = f"{made.weight_bytes:,} bytes in {len(made.files)} file{'s' if len(made.files) > 1 else ''}"
    added = [f"{made.added_zeros} biases that the model lacks are written as zeros"] if made.added_zeros else []
    return [f"{made.path}: {made.architecture}, {size}", *added]


def _gguf(given: Namespace) -> list[str]:
    from litgpt_core.export.gguf.exporting import export_gguf

    made = export_gguf(given.checkpoint, given.out, type=given.type, force=given.force, check=not given.no_check)
    lines = [f"{made.path}: {made.architecture}, {made.parameters:,} parameters as {made.type}, {made.n_bytes:,} bytes"]
    if made.other_types:
        lines.append(f"{len(made.other_types)} matrices as F16: their rows are no multiple of 32")
    lines += made.parity.lines() if made.parity else ["not checked (--no_check)"]
    return [*lines, f"for Ollama: ollama create {made.path.stem} -f {made.modelfile}"]


def _onnx(given: Namespace) -> list[str]:
    from litgpt_core.export.onnx.exporting import export_onnx

    made = export_onnx(
        given.checkpoint, given.out, type=given.type or "f32", force=given.force, check=not given.no_check
    )
    said = f"{made.path}: {made.architecture}, {made.parameters:,} parameters as {made.type}, {made.n_bytes:,} bytes"
    return [said, *(made.parity.lines() if made.parity else ["not checked (--no_check)"])]


def _web(given: Namespace) -> list[str]:
    from litgpt_core.export.web.exporting import export_web

    made = export_web(given.checkpoint, given.out, force=given.force, check=not given.no_check)
    said = f"{made.path}: {made.parameters:,} weights as int8, {made.n_bytes:,} bytes; open it in a browser"
    return [said, *(made.parity.lines() if made.parity else ["not checked (--no_check)"])]


def _file(given: Namespace) -> list[str]:
    if given.format == "python":
        from litgpt_core.export.single.python_file import export_python

        made = export_python(given.checkpoint, given.out, force=given.force, check=not given.no_check)
    else:
        from litgpt_core.export.single.arrays import export_arrays

        made = export_arrays(
            given.checkpoint, given.out, format=given.format, force=given.force, check=not given.no_check
        )
    checked = made.parity.lines() if made.parity else ["not checked (--no_check)"]
    return [f"{made.path}: {made.parameters:,} weights, {made.n_bytes:,} bytes", *checked]
