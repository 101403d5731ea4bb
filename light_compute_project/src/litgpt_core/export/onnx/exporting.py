"""Exports a checkpoint as a folder with an ONNX graph: written under a temporary name, compared, then put in place."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from litgpt_core.core.directories import new_directory
from litgpt_core.core.errors import CheckpointError, ConfigError
from litgpt_core.core.files import sha256_of
from litgpt_core.core.replaceable import CHECKSUMS, refuse_taken
from litgpt_core.export.blocks import CheckpointSource
from litgpt_core.export.huggingface.families import choose
from litgpt_core.export.huggingface.layout import CONFIG
from litgpt_core.export.huggingface.vocabulary import write_tokenizer
from litgpt_core.export.onnx.checking import check_graph
from litgpt_core.export.onnx.graph import onnx_package
from litgpt_core.export.onnx.layouts import FOLDER, GENAI_CONFIG, config_json, genai_config, graph_name
from litgpt_core.export.onnx.matrices import TYPES, Matrices
from litgpt_core.export.onnx.step import build, refuse_unsupported
from litgpt_core.export.parity import Parity


@dataclass(frozen=True, kw_only=True)
class ExportedOnnx:
    """The result of `export_onnx`."""

    path: Path
    architecture: str
    type: str
    n_bytes: int
    """Of the graph, and of its weights where they are in a second file."""
    parameters: int
    parity: Parity | None
    """None if the check was left out."""


def export_onnx(
    checkpoint: str | Path | None,
    target: Path,
    *,
    type: str = "f32",
    force: bool = False,
    check: bool = True,
) -> ExportedOnnx:
    """Write a checkpoint as a folder for onnxruntime-genai, optimum and transformers.js.

    Args:
        checkpoint: A name or path as for `litgpt_core.checkpoint.choose`; None: the best candidate.
        target: The folder to create.
        type: f32, int8 or int4.
        force: Replace a `target` that this project wrote.
        check: Run the graph with onnxruntime and compare.

    Raises:
        CheckpointError: No architecture is equivalent, a part has no counterpart, the graph does not compute the same,
            or `target` cannot be written.
        ConfigError: The type is unknown.
        EnvironmentProblem: A package is not installed.
    """
    if type not in TYPES:
        raise ConfigError(f"--type {type} is unknown.", needed=f"one of {', '.join(TYPES)}", fix="--type int8")
    onnx_package()
    source, target = CheckpointSource.read(checkpoint), Path(target)
    refuse_taken(target, source=source.directory, force=force)
    refuse_unsupported(source.config)
    family, named = choose(source.config)
    own = {} if type == "f32" else source.own_blocks()
    tied = source.config.tie_embeddings
    matrices = Matrices(source.weights, kind=type, own=own, tied=tied)
    graph = build(source.config, matrices)
    try:
        with new_directory(target) as folder:
            (folder / FOLDER).mkdir()
            file = folder / graph_name(type)
            n_bytes, parity = graph.write(file), None
            if check:
                parity = _checked(file, source, matrices, large=bool(graph.external))
                parity.refuse(target / graph_name(type))
                parity.keep(file)
            ids = write_tokenizer(source.directory, folder, longest=named.block_size)
            large = file.name if graph.external else None
            _write_json(folder / CONFIG, config_json(family, named, ids, large=large))
            _write_json(folder / GENAI_CONFIG, genai_config(family, named, ids, kind=type))
            _finish(folder)
    except OSError as problem:
        raise CheckpointError(
            f"Could not write {target}: {problem}. An existing folder is unchanged.",
            needed="a writable folder, with room for the weights",
            fix="free disk space, or --out FOLDER",
        ) from problem
    return ExportedOnnx(
        path=target,
        architecture=family.architecture,
        type=type,
        n_bytes=n_bytes,
        parameters=source.parameters(),
        parity=parity,
    )


def _checked(file: Path, source: CheckpointSource, matrices: Matrices, *, large: bool) -> Parity:
    """Compare a graph with its checkpoint; for integers also the same graph without rounding of activations."""
    exact = None
    if matrices.kind != "f32":
        exact, matrices.rounded = file.with_name("exact.onnx"), False
        build(source.config, matrices).write(exact, data=file.with_name(f"{file.name}_data") if large else None)
    again = source.model_of(matrices.used())
    found = check_graph(file, source.model, again, source.tokenizer, kind=matrices.kind, exact=exact)
    if exact is not None:
        exact.unlink()
    return found


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _finish(folder: Path) -> None:
    """Write checksums of all files, and flush everything to disk."""
    files = sorted(each for each in folder.rglob("*") if each.is_file())
    facts = {
        each.relative_to(folder).as_posix(): {"bytes": each.stat().st_size, "sha256": sha256_of(each)} for each in files
    }
    _write_json(folder / CHECKSUMS, facts)
    for each in [*files, folder / CHECKSUMS]:
        with each.open("rb+") as opened:
            os.fsync(opened.fileno())
