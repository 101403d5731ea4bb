"""Reads the index of a sharded checkpoint without running code from it.

torch's own reader unpickles `.metadata` with `pickle.load`, so that whoever made the file could run anything, and an
entry of bytes instead of a tensor is unpickled in the same way. Here every name in the pickle becomes a plain stand-in,
and the index is built anew from checked numbers. The shards themselves are read by torch with `weights_only=True`.
"""

from __future__ import annotations

import io
import math
import pickle
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.filesystem import FileSystemReader, _StorageInfo
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    StorageMeta,
    TensorProperties,
    TensorStorageMetadata,
)

from litgpt_core.checkpoint.layout import SHARDS
from litgpt_core.core.parsing import read_bytes
from litgpt_core.core.torch_file import MAX_PICKLE_BYTES, TorchFileError, check_pickle

_MAX_OPCODES = 10_000_000
"""About 30 for each chunk of a tensor: an optimizer's state on hundreds of processes has many."""
_PLACE = "torch.distributed.checkpoint."
_RECORDS = {
    *(_PLACE + f"metadata {name}" for name in ("Metadata", "TensorStorageMetadata", "TensorProperties")),
    *(_PLACE + f"metadata {name}" for name in ("ChunkStorageMetadata", "MetadataIndex", "StorageMeta")),
    _PLACE + "filesystem _StorageInfo",
}
_IGNORED = {_PLACE + "metadata _MEM_FORMAT_ENCODING", "torch.serialization _get_layout"}
_IGNORED |= {f"pathlib {name}" for name in ("PosixPath", "PurePosixPath", "WindowsPath", "PureWindowsPath", "Path")}


class ShardReader(FileSystemReader):
    """`FileSystemReader` with an index that holds tensors alone, in files of the directory itself.

    Every error of the index is a `TorchFileError` or OSError.
    """

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.directory = directory

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        """The index; with arguments, as torch asks for an index of one rank, there is none."""
        if args or kwargs:
            raise FileNotFoundError("an index of one rank")
        data = read_bytes(self.directory / SHARDS, max_bytes=MAX_PICKLE_BYTES)
        check_pickle(io.BytesIO(data), max_opcodes=_MAX_OPCODES)
        try:
            metadata = _metadata(_Unpickler(io.BytesIO(data)).load())
            self._check_sizes(metadata)
        except TorchFileError:
            raise
        except Exception as problem:  # a corrupted pickle can raise any exception
            raise TorchFileError(f"it is corrupted ({type(problem).__name__}: {problem})") from None
        metadata.storage_meta = StorageMeta(load_id=self.load_id)
        return metadata

    def _check_sizes(self, metadata: Metadata) -> None:
        """Refuse an index that describes more than the shards hold: tensors are allocated before they are read."""
        files = {place.relative_path for place in metadata.storage_data.values()}
        held = sum((self.directory / file).stat().st_size for file in files)
        described = sum(
            math.prod(entry.size) * entry.properties.dtype.itemsize
            for entry in metadata.state_dict_metadata.values()
            if isinstance(entry, TensorStorageMetadata)
        )
        if described > held:
            raise TorchFileError(f"it describes {described:,} bytes of tensors, but its shards have {held:,}")


class _Unpickler(pickle._Unpickler):  # the slow one: its memo takes no more than it holds
    """Builds stand-ins: fresh classes without behaviour, so that nothing in the pickle can change torch's."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self.records = {name: type(name.split(" ")[1], (_Record,), {}) for name in _RECORDS}

    def find_class(self, module: str, name: str) -> Any:
        full = f"{module} {name}"
        if full in self.records:
            return self.records[full]
        if full in _IGNORED:
            return _nothing
        if full == "torch Size":
            return tuple
        dtype = getattr(torch, name, None) if module == "torch" else None
        if isinstance(dtype, torch.dtype):
            return dtype
        raise TorchFileError(f"it names {module}.{name}: loading it could run code")


class _Record:
    """The fields of one object, unchecked."""

    fields: Any = None

    def __setstate__(self, state: Any) -> None:
        self.fields = state


def _nothing(*_: Any) -> None:
    return None


def _metadata(content: Any) -> Metadata:
    """torch's objects from the stand-ins. TorchFileError or any other exception for what is not as torch writes it."""
    fields = _fields(content, "Metadata")
    tensors = {str(name): _tensor(entry, str(name)) for name, entry in fields["state_dict_metadata"].items()}
    places = {}
    for index, place in fields["storage_data"].items():
        key = _fields(index, "MetadataIndex")
        found = _fields(place, "_StorageInfo")
        file = found["relative_path"]
        if not isinstance(file, str) or Path(file).name != file or "\\" in file or found.get("transform_descriptors"):
            raise TorchFileError(f"it names the shard {file!r}, which is not a plain file of the directory")
        offset = None if key.get("offset") is None else torch.Size(_whole(key["offset"]))
        begin, length = _whole((found["offset"], found["length"]))
        entry_index = None if key.get("index") is None else _whole((key["index"],))[0]
        places[MetadataIndex(str(key["fqn"]), offset, entry_index)] = _StorageInfo(file, begin, length)
    return Metadata(state_dict_metadata=dict(tensors), storage_data=places)


def _tensor(entry: Any, name: str) -> TensorStorageMetadata:
    if type(entry).__name__ != "TensorStorageMetadata":
        raise TorchFileError(f"{name} is not a tensor: loading it could run code")
    fields = _fields(entry, "TensorStorageMetadata")
    dtype = fields["properties"].fields[0]
    if not isinstance(dtype, torch.dtype):
        raise TorchFileError(f"{name} has no dtype")
    chunks = []
    for chunk in fields["chunks"]:
        parts = _fields(chunk, "ChunkStorageMetadata")
        offsets, sizes = torch.Size(_whole(parts["offsets"])), torch.Size(_whole(parts["sizes"]))
        chunks.append(ChunkStorageMetadata(offsets=offsets, sizes=sizes))
    size = torch.Size(_whole(fields["size"]))
    return TensorStorageMetadata(properties=TensorProperties(dtype=dtype), size=size, chunks=chunks)


def _fields(record: Any, kind: str) -> dict[str, Any]:
    fields = getattr(record, "fields", None)
    if type(record).__name__ != kind or not isinstance(fields, dict):
        raise TorchFileError(f"it holds a {type(record).__name__} instead of a {kind}")
    return fields


def _whole(values: Any) -> list[int]:
    if not isinstance(values, tuple) or not all(type(value) is int and 0 <= value < 2**63 for value in values):
        raise TorchFileError(f"it holds {values!r:.80} instead of sizes")
    return list(values)
