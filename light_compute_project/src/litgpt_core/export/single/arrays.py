"""Weights by LitGPT's names in one file, with config and tokenizer inside.

safetensors   `safetensors.safe_open`: tensors in their dtype; files as base64 in the metadata
npz           `numpy.load`: arrays (bfloat16 as float32, which holds it); files as bytes under `files/NAME`
json          any language: {"weights": {NAME: {"shape", "values"}}, "files": {NAME: base64}}; floats in full
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from litgpt_core.core.errors import CheckpointError
from litgpt_core.export.parity import Parity, compare_logits, logits_of, sample_ids
from litgpt_core.export.single.checkpoint import Parts
from litgpt_core.export.writing import export_file, refuse_used
from litgpt_core.model.gpt import GPT

_MOST_JSON = 50_000_000
"""Weights; a number takes about 20 characters."""


@dataclass(frozen=True, kw_only=True)
class ExportedFile:
    """The result of an export to one file."""

    path: Path
    n_bytes: int
    parameters: int
    parity: Parity | None


def export_arrays(
    checkpoint: str | Path | None, target: Path, *, format: str, force: bool = False, check: bool = True
) -> ExportedFile:
    """Write a checkpoint's weights, config and tokenizer to one file.

    Args:
        checkpoint: A name or path as for `litgpt_core.checkpoint.choose`.
        target: The file to create.
        format: safetensors, npz or json.
        force: Replace a `target` of the same kind.
        check: Read the file back with the format's own library, and compare.

    Raises:
        CheckpointError: The checkpoint cannot be read, is too large for JSON, or `target` exists or cannot be written.
    """
    target, parts = Path(target), Parts.read(checkpoint)
    refuse_used(target, source=parts.directory, force=force, contains=b"transformer.wte.weight")
    weights, (write, read, reader) = parts.weights(), _FORMATS[format]
    count = parts.parameters()
    if format == "json" and count > _MOST_JSON:
        raise CheckpointError(
            f"The model has {count:,} weights, too many for JSON.",
            needed=f"at most {_MOST_JSON:,}",
            fix="--format safetensors",
        )
    parity = export_file(
        target,
        lambda path: write(path, weights, parts.files()),
        check=(lambda path: _compare(parts, read(path), format=format, reader=reader)) if check else None,
        n_bytes=sum(each.nbytes for each in weights.values()),
    )
    return ExportedFile(path=target, n_bytes=target.stat().st_size, parameters=count, parity=parity)


def _compare(parts: Parts, back: Mapping[str, Tensor], *, format: str, reader: str) -> Parity:
    """Every number is equal; the logits of a model with them, too."""
    weights = parts.weights()
    different = [
        name for name in weights if name not in back or not torch.equal(weights[name].float(), back[name].float())
    ]
    failures = (f"{len(different)} weights differ, such as {different[0]}",) if different else ()
    again = GPT(parts.model.config)
    if not different:
        again.load_state_dict({name: back[name].float() for name in weights})
    ids, n_bytes = sample_ids(parts.tokenizer, longest=parts.model.config.block_size)
    rows = parts.tokenizer.vocab_size
    first, second = (logits_of(each.float().eval(), ids, rows=rows) for each in (parts.model, again))
    return Parity(
        format=format, reader=reader, failures=failures, **compare_logits(first, second, ids, n_bytes=n_bytes)
    )


def _encoded(files: Mapping[str, bytes]) -> dict[str, str]:
    return {name: base64.b64encode(data).decode("ascii") for name, data in files.items()}


def _numpy(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    return {name: (each.float() if each.dtype == torch.bfloat16 else each).numpy() for name, each in weights.items()}


def _write_safetensors(path: Path, weights: Mapping[str, Tensor], files: Mapping[str, bytes]) -> None:
    from safetensors.torch import save_file

    separate = {name: each.clone() for name, each in weights.items()}  # tied weights share memory
    save_file(separate, path, metadata={"format": "pt", **_encoded(files)})


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    return load_file(path)


def _write_npz(path: Path, weights: Mapping[str, Tensor], files: Mapping[str, bytes]) -> None:
    arrays = {**_numpy(weights), **{f"files/{name}": np.frombuffer(data, np.uint8) for name, data in files.items()}}
    with path.open("wb") as opened:  # numpy would add .npz to a name
        np.savez(opened, **arrays)


def _read_npz(path: Path) -> dict[str, Tensor]:
    with np.load(path, allow_pickle=False) as archive:
        return {name: torch.from_numpy(archive[name]) for name in archive.files if not name.startswith("files/")}


def _write_json(path: Path, weights: Mapping[str, Tensor], files: Mapping[str, bytes]) -> None:
    with path.open("w", encoding="utf-8") as opened:
        opened.write('{"files": ' + json.dumps(_encoded(files)) + ',\n"weights": {')
        for number, (name, each) in enumerate(weights.items()):
            entry = {"shape": list(each.shape), "values": each.double().flatten().tolist()}
            opened.write(("," if number else "") + f"\n{json.dumps(name)}: {json.dumps(entry)}")
        opened.write("\n}}\n")


def _read_json(path: Path) -> dict[str, Tensor]:
    content = json.loads(path.read_text(encoding="utf-8"))["weights"]
    return {
        name: torch.tensor(each["values"], dtype=torch.float64).reshape(each["shape"]) for name, each in content.items()
    }


_Writer = Callable[[Path, Mapping[str, Tensor], Mapping[str, bytes]], None]
_FORMATS: dict[str, tuple[_Writer, Callable[[Path], dict[str, Tensor]], str]] = {
    "safetensors": (_write_safetensors, _read_safetensors, "safetensors"),
    "npz": (_write_npz, _read_npz, "numpy"),
    "json": (_write_json, _read_json, "Python's json"),
}
