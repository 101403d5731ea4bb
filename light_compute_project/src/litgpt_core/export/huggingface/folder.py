"""The weights of a Hugging Face folder: which files, what each claims to hold, and the tensors one shard at a time.

A safetensors file is 8 bytes N (little-endian), N bytes of JSON that name every tensor with its type, shape and place,
then the data. So a file that is cut off, or an index that promises what no shard holds, is found from a few kilobytes,
before any weight is read. Not here: what the tensors mean (`rules`, `families`).
"""

from __future__ import annotations

import json
import math
import pickle
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from litgpt_core.core.errors import CheckpointError
from litgpt_core.export.huggingface.layout import SAFETENSORS, SAFETENSORS_INDEX, TORCH, TORCH_INDEX, WEIGHTS

if TYPE_CHECKING:
    from torch import Tensor

AGAIN = "download or copy the folder again"

_ITEM_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
_LONGEST_HEADER = 100_000_000  # bytes; the format's own limit
_LFS_POINTER = b"version https://git-lfs"


@dataclass(frozen=True, kw_only=True)
class StoredTensor:
    """Where a tensor lies, and its shape."""

    file: Path
    shape: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class WeightFolder:
    """All weights of a folder, checked as far as that goes without reading them."""

    path: Path
    tensors: Mapping[str, StoredTensor]
    """By stored name."""

    @property
    def files(self) -> list[Path]:
        """The shards, in order of their names."""
        return sorted({tensor.file for tensor in self.tensors.values()})

    def read(self) -> Iterator[tuple[str, Tensor]]:
        """Every (stored name, tensor), one shard in memory at a time.

        Raises:
            CheckpointError: A file that passed the check cannot be read after all.
        """
        for file in self.files:
            names = [name for name, tensor in self.tensors.items() if tensor.file == file]
            yield from _read_torch(file, names) if file.suffix == ".bin" else _read_safetensors(file, names)


def open_weights(folder: Path) -> WeightFolder:
    """Find and check the weight files of `folder`.

    Raises:
        CheckpointError: There are none; one is missing, cut off, or no such file at all; the index names a tensor that
            no shard holds; weights are of a type that this project does not compute with.
    """
    found = next((folder / name for name in WEIGHTS if (folder / name).is_file()), None)
    if found is None:
        names = sorted(entry.name for entry in folder.iterdir())
        raise CheckpointError(
            f"{folder} holds no weights; in it there is {', '.join(names[:12]) or 'nothing'}.",
            needed=f"{SAFETENSORS} or {TORCH}, or the index of their shards",
            fix=AGAIN,
        )
    if found.name not in (SAFETENSORS_INDEX, TORCH_INDEX):
        return WeightFolder(path=folder, tensors=_stored(found))
    tensors: dict[str, StoredTensor] = {}
    wanted = _index(found)
    for shard in sorted(set(wanted.values())):
        file = folder / shard
        if not file.is_file():
            raise CheckpointError(
                f"{file} is missing; {found.name} says that it holds weights.", needed="every shard", fix=AGAIN
            )
        stored = _stored(file)
        for name in (name for name, where in wanted.items() if where == shard):
            if name not in stored:
                raise CheckpointError(
                    f"{found} says that {name} is in {shard}; it is not.",
                    needed="an index and shards of the same model",
                    fix=AGAIN,
                )
            tensors[name] = stored[name]
    return WeightFolder(path=folder, tensors=tensors)


def read_json(file: Path) -> dict[str, Any]:
    """The object in a JSON file; CheckpointError names the file if it is missing, broken, or holds something else."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(
            f"{file} is missing.", needed=f"a Hugging Face model folder with {file.name}", fix=AGAIN
        ) from None
    except (OSError, ValueError) as problem:
        raise CheckpointError(
            f"{file} cannot be read as JSON: {problem}.", needed="an intact file", fix=AGAIN
        ) from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{file} holds a {type(content).__name__}.", needed="a JSON object", fix=AGAIN)
    return content


def _index(file: Path) -> dict[str, str]:
    """Tensor -> shard. A shard's name must stay inside the folder."""
    places = read_json(file).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(shard, str) for shard in places.values()):
        raise CheckpointError(f"{file} has no usable weight_map.", needed='{"weight_map": {tensor: shard}}', fix=AGAIN)
    for shard in places.values():
        if Path(shard).name != shard or "\\" in shard:
            raise CheckpointError(f"{file} names the shard {shard!r}.", needed="plain file names", fix=AGAIN)
    return {str(name): shard for name, shard in places.items()}


def _stored(file: Path) -> dict[str, StoredTensor]:
    with file.open("rb") as opened:
        pointer = opened.read(len(_LFS_POINTER)) == _LFS_POINTER
    if pointer:
        raise CheckpointError(
            f"{file} is a Git LFS pointer, not the file itself.", needed="the weights", fix="git lfs pull"
        )
    shapes = _torch_shapes(file) if file.suffix == ".bin" else safetensors_shapes(file)
    return {name: StoredTensor(file=file, shape=shape) for name, shape in shapes.items()}


# --- safetensors


def safetensors_shapes(file: Path) -> dict[str, tuple[int, ...]]:
    """Tensor -> shape from a file's header, after checking that the file is as long as the header says.

    Raises:
        CheckpointError: The file is cut off or damaged, or holds a type other than 16-, 32- or 64-bit floats.
    """
    header, data_bytes = _header(file)
    end, shapes = 0, {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        try:
            kind, shape = str(entry["dtype"]), tuple(int(size) for size in entry["shape"])
            begin, stop = (int(offset) for offset in entry["data_offsets"])
        except (TypeError, KeyError, ValueError) as problem:
            raise _damaged(file, f"its header describes {name} by {entry!r} ({problem})") from None
        if kind not in _ITEM_BYTES:
            raise CheckpointError(
                f"{name} in {file} is stored as {kind}.",
                needed=f"weights of type {', '.join(_ITEM_BYTES)}: quantised folders cannot be imported",
                fix="take the unquantised folder of the model",
            )
        if min(shape, default=0) < 0 or begin < 0 or stop - begin != math.prod(shape) * _ITEM_BYTES[kind]:
            raise _damaged(file, f"its header gives {name} {stop - begin:,} bytes for {kind} {list(shape)}")
        end, shapes[name] = max(end, stop), shape
    if end != data_bytes:
        raise _damaged(file, f"its header promises {end:,} bytes of weights, and {data_bytes:,} follow")
    return shapes


def _header(file: Path) -> tuple[dict[str, Any], int]:
    """The parsed header, and how many bytes follow it."""
    size = file.stat().st_size
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        if size < 8 or length > min(size - 8, _LONGEST_HEADER):
            raise _damaged(file, f"its header would take {length:,} of its {size:,} bytes")
        try:
            header = json.loads(opened.read(length).decode("utf-8"))
        except ValueError as problem:
            raise _damaged(file, f"its header is not JSON ({problem})") from None
    if not isinstance(header, dict):
        raise _damaged(file, "its header is not a JSON object")
    return header, size - 8 - length


def _read_safetensors(file: Path, names: list[str]) -> Iterator[tuple[str, Tensor]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="pt") as opened:
            for name in names:
                yield name, opened.get_tensor(name)
    except SafetensorError as problem:
        raise _damaged(file, str(problem)) from problem


def _damaged(file: Path, problem: str) -> CheckpointError:
    return CheckpointError(
        f"{file} ({file.stat().st_size:,} bytes) is cut off or damaged: {problem}.", needed="the whole file", fix=AGAIN
    )


# --- torch's own format


def _torch_shapes(file: Path) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in _load_torch(file).items()}


def _read_torch(file: Path, names: list[str]) -> Iterator[tuple[str, Tensor]]:
    weights = _load_torch(file)
    for name in names:
        yield name, weights.pop(name)


def _load_torch(file: Path) -> dict[str, Tensor]:
    """A state dict: mapped lazily from torch's zip format, read whole from the one before (2020 and earlier)."""
    from litgpt_core.checkpoint.load import load_weights

    with file.open("rb") as opened:
        zipped = opened.read(4) == b"PK\x03\x04"
    return load_weights(file) if zipped else _load_old_torch(file)


def _load_old_torch(file: Path) -> dict[str, Tensor]:
    import torch

    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except pickle.UnpicklingError as problem:
        raise CheckpointError(
            f"{file} is damaged, or holds more than tensors: reading it could run code.",
            needed="a file that torch.load(..., weights_only=True) reads",
            fix=AGAIN,
        ) from problem
    except Exception as problem:  # a damaged pickle may raise anything
        raise _damaged(file, str(problem).partition("\n")[0] or type(problem).__name__) from problem
    if not isinstance(content, dict) or not all(isinstance(value, torch.Tensor) for value in content.values()):
        raise CheckpointError(f"{file} holds no state dict.", needed="{name: tensor}", fix=AGAIN)
    return {str(name): tensor for name, tensor in content.items()}
