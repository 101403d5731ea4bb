"""The weight files of a Hugging Face folder: their headers, and their tensors one shard at a time.

A safetensors file consists of 8 bytes N (little-endian), N bytes of JSON with the dtype, shape and offsets of every
tensor, and the data. So a truncated file, or an index with tensors that no shard has, is detected by reading a few
kilobytes. The meaning of the tensors is in `rules` and `families`.
"""

from __future__ import annotations

import math
import pickle
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from litgpt_core.core.errors import CheckpointError
from litgpt_core.core.links import refuse_leading_out
from litgpt_core.core.parsing import MAX_JSON_BYTES, ParsingError, parse_json
from litgpt_core.core.parsing import read_json as read_bounded_json
from litgpt_core.core.torch_file import check_torch_file
from litgpt_core.export.huggingface.layout import SAFETENSORS, SAFETENSORS_INDEX, TORCH, TORCH_INDEX, WEIGHTS

if TYPE_CHECKING:
    from torch import Tensor

AGAIN = "download or copy the folder again"

_ITEM_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
QUANTIZED_ITEM_BYTES = {
    **_ITEM_BYTES,
    "I64": 8,
    "I32": 4,
    "I16": 2,
    "I8": 1,
    "U8": 1,
    "BOOL": 1,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
}
"""Bytes of a number in folders with quantized weights."""
_LONGEST_HEADER = MAX_JSON_BYTES  # the format's own limit is 100 MB; a header has about 100 bytes a tensor
_LFS_POINTER = b"version https://git-lfs"


@dataclass(frozen=True, kw_only=True)
class StoredTensor:
    """The file and the shape of a tensor."""

    file: Path
    shape: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class WeightFolder:
    """All weights of a folder, checked by their headers."""

    path: Path
    tensors: Mapping[str, StoredTensor]
    """By stored name."""
    described_by: str = "config.json"
    """What describes the model, for error messages."""

    @property
    def files(self) -> list[Path]:
        """The shards, in order of their names."""
        return sorted({tensor.file for tensor in self.tensors.values()})

    def read(self, names: Collection[str] | None = None) -> Iterator[tuple[str, Tensor]]:
        """Every (stored name, tensor), or those of `names`, one shard in memory at a time.

        Raises:
            CheckpointError: A file that passed the check cannot be read.
        """
        chosen = self.tensors if names is None else {name: self.tensors[name] for name in names}
        for file in sorted({tensor.file for tensor in chosen.values()}):
            own = [name for name, tensor in chosen.items() if tensor.file == file]
            yield from _read_torch(file, own) if file.suffix == ".bin" else _read_safetensors(file, own)


def open_weights(folder: Path, *, items: Mapping[str, int] = _ITEM_BYTES) -> WeightFolder:
    """Find and check the weight files of `folder`. `items`: the types that they may have, and their bytes.

    Raises:
        CheckpointError: There are none; a file is missing, truncated or of another format; the index names a tensor
            that its shard does not have; weights have an unsupported dtype.
    """
    found = next((folder / name for name in WEIGHTS if (folder / name).is_file()), None)
    if found is None:
        names = sorted(entry.name for entry in folder.iterdir())
        raise CheckpointError(
            f"{folder} has no weights; it contains {', '.join(names[:12]) or 'nothing'}.",
            needed=f"{SAFETENSORS} or {TORCH}, or the index of their shards",
            fix=AGAIN,
        )
    if found.name not in (SAFETENSORS_INDEX, TORCH_INDEX):
        return WeightFolder(path=folder, tensors=_stored(found, items))
    tensors: dict[str, StoredTensor] = {}
    index = _index(found)
    for shard in sorted(set(index.values())):
        file = folder / shard
        if not file.is_file():
            raise CheckpointError(f"{file} is missing, but listed in {found.name}.", needed="every shard", fix=AGAIN)
        stored = _stored(file, items)
        for name in (name for name, where in index.items() if where == shard):
            if name not in stored:
                raise CheckpointError(
                    f"{found} lists {name} in {shard}, which does not have it.",
                    needed="an index and shards of the same model",
                    fix=AGAIN,
                )
            tensors[name] = stored[name]
    return WeightFolder(path=folder, tensors=tensors)


def read_json(file: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises CheckpointError if the file is missing, invalid, or not an object."""
    try:
        content = read_bounded_json(refuse_leading_out(file))
    except FileNotFoundError:
        raise CheckpointError(
            f"{file} is missing.", needed=f"a Hugging Face model folder with {file.name}", fix=AGAIN
        ) from None
    except (OSError, ValueError) as problem:
        raise CheckpointError(
            f"{file} cannot be read as JSON: {problem}.", needed="an uncorrupted file", fix=AGAIN
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


def _stored(file: Path, items: Mapping[str, int]) -> dict[str, StoredTensor]:
    refuse_leading_out(file)
    with file.open("rb") as opened:
        pointer = opened.read(len(_LFS_POINTER)) == _LFS_POINTER
    if pointer:
        raise CheckpointError(
            f"{file} is a Git LFS pointer, not the file itself.", needed="the weights", fix="git lfs pull"
        )
    shapes = _torch_shapes(file) if file.suffix == ".bin" else safetensors_shapes(file, items=items)
    return {name: StoredTensor(file=file, shape=shape) for name, shape in shapes.items()}


# --- safetensors


def safetensors_shapes(file: Path, *, items: Mapping[str, int] = _ITEM_BYTES) -> dict[str, tuple[int, ...]]:
    """Tensor -> shape from a file's header, after checking the file's size against the header.

    Raises:
        CheckpointError: The file is truncated or corrupted, or has a dtype that is not in `items`.
    """
    header, data_bytes = _header(file)
    end, shapes = 0, {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        try:
            kind, shape = str(entry["dtype"]), tuple(int(size) for size in entry["shape"])
            begin, stop = (int(offset) for offset in entry["data_offsets"])
        except (TypeError, KeyError, ValueError, OverflowError) as problem:
            raise _corrupted(file, f"its header describes {name} by {entry!r} ({problem})") from None
        if kind not in items:
            raise CheckpointError(
                f"{name} in {file} is stored as {kind}.",
                needed=f"weights of type {', '.join(items)}, or a config.json that says how they are quantised",
                fix="use the unquantised folder of the model",
            )
        if min(shape, default=0) < 0 or begin < 0 or stop - begin != math.prod(shape) * items[kind]:
            raise _corrupted(file, f"its header gives {name} {stop - begin:,} bytes for {kind} {list(shape)}")
        end, shapes[name] = max(end, stop), shape
    if end != data_bytes:
        raise _corrupted(file, f"its header describes {end:,} bytes of weights, but {data_bytes:,} follow")
    return shapes


def _header(file: Path) -> tuple[dict[str, Any], int]:
    """The parsed header, and how many bytes follow it."""
    size = file.stat().st_size
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        if size < 8 or length > min(size - 8, _LONGEST_HEADER):
            raise _corrupted(file, f"its header would take {length:,} of its {size:,} bytes")
        try:
            header = parse_json(opened.read(length))
        except ParsingError as problem:
            raise _corrupted(file, f"its header is not JSON ({problem})") from None
    if not isinstance(header, dict):
        raise _corrupted(file, "its header is not a JSON object")
    return header, size - 8 - length


def _read_safetensors(file: Path, names: list[str]) -> Iterator[tuple[str, Tensor]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="pt") as opened:
            for name in names:
                yield name, opened.get_tensor(name)
    except SafetensorError as problem:
        raise _corrupted(file, str(problem)) from problem


def _corrupted(file: Path, problem: str) -> CheckpointError:
    return CheckpointError(
        f"{file} ({file.stat().st_size:,} bytes) is truncated or corrupted: {problem}.",
        needed="the complete file",
        fix=AGAIN,
    )


# --- torch's own format


def _torch_shapes(file: Path) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in _load_torch(file).items()}


def _read_torch(file: Path, names: list[str]) -> Iterator[tuple[str, Tensor]]:
    weights = _load_torch(file)
    for name in names:
        yield name, weights.pop(name)


def _load_torch(file: Path) -> dict[str, Tensor]:
    """A state dict: memory-mapped from torch's zip format, or read completely from the older format (until 2020)."""
    from litgpt_core.checkpoint.load import load_weights

    with file.open("rb") as opened:
        zipped = opened.read(4) == b"PK\x03\x04"
    return load_weights(file) if zipped else _load_old_torch(file)


def _load_old_torch(file: Path) -> dict[str, Tensor]:
    import torch

    try:
        check_torch_file(file)
        content = torch.load(file, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except pickle.UnpicklingError as problem:
        raise CheckpointError(
            f"{file} is corrupted, or holds more than tensors: loading it could run code.",
            needed="a file that torch.load(..., weights_only=True) accepts",
            fix=AGAIN,
        ) from problem
    except Exception as problem:  # a corrupted pickle can raise any exception
        raise _corrupted(file, str(problem).partition("\n")[0] or type(problem).__name__) from problem
    if not isinstance(content, dict) or not all(isinstance(value, torch.Tensor) for value in content.values()):
        raise CheckpointError(f"{file} is not a state dict.", needed="{name: tensor}", fix=AGAIN)
    return {str(name): tensor for name, tensor in content.items()}
