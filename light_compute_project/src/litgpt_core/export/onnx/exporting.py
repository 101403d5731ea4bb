"""Exports a checkpoint as a folder with an ONNX graph: written under a temporary name, compared, then put in place."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from litgpt_core.core.errors import ConfigError
from litgpt_core.core.files import write_json
from litgpt_core.core.replaceable import refuse_taken
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
from litgpt_core.export.writing import export_folder


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
    with export_folder(target, n_bytes=sum(each.nbytes for each in source.weights.values())) as folder:
        (folder / FOLDER).mkdir()
        file = folder / graph_name(type)
        n_bytes, parity = graph.write(file), None
        if check:
            parity = _checked(file, source, matrices, large=bool(graph.external))
            parity.refuse(target / graph_name(type))
            parity.keep(file)
        ids = write_tokenizer(source.directory, folder, longest=named.block_size)
        large = file.name if graph.external else None
        write_json(folder / CONFIG, config_json(family, named, ids, large=large))
        write_json(folder / GENAI_CONFIG, genai_config(family, named, ids, kind=type))
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
