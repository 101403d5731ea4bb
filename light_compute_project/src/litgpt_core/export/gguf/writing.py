"""Writes a GGUF file, version 3: header, then one tensor at a time. `header` describes the format and reads it."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from litgpt_core.export.gguf.layout import (
    ALIGNMENT,
    ARRAY,
    BOOL,
    FLOAT32,
    INT32,
    MAGIC,
    STRING,
    TENSOR_TYPES,
    UINT32,
    TensorType,
)
from litgpt_core.export.gguf.quantization import Bytes

_NUMBERS = {kind: number for number, kind in TENSOR_TYPES.items()}


@dataclass(frozen=True, kw_only=True)
class NewTensor:
    """A tensor to be written."""

    name: str
    shape: tuple[int, ...]
    """Rows first."""
    type: TensorType
    make: Callable[[], Bytes]
    """Its bytes, when their turn has come, so that only one tensor is in memory."""

    @property
    def n_bytes(self) -> int:
        """Bytes in the file, without padding."""
        size = 1
        for length in self.shape:
            size *= length
        return size // self.type.block * self.type.size


def write_gguf(path: Path, metadata: Mapping[str, Any], tensors: Sequence[NewTensor]) -> int:
    """Write a file; the number of its bytes. OSError passes through.

    Args:
        metadata: Booleans, whole numbers (32 bits), floats (stored in float32), strings, lists of one of these.
        tensors: In the order of the file.
    """
    with path.open("wb") as file:
        file.write(MAGIC + struct.pack("<IQQ", 3, len(tensors), len(metadata)))
        for key, value in metadata.items():
            file.write(_text(key) + _value(value))
        offset = 0
        for tensor in tensors:
            dimensions = tuple(reversed(tensor.shape))
            file.write(_text(tensor.name) + struct.pack(f"<I{len(dimensions)}Q", len(dimensions), *dimensions))
            file.write(struct.pack("<IQ", _NUMBERS[tensor.type], offset))
            offset += -(-tensor.n_bytes // ALIGNMENT) * ALIGNMENT
        _pad(file)
        for tensor in tensors:
            data = tensor.make()
            assert data.nbytes == tensor.n_bytes, f"{tensor.name}: {data.nbytes} bytes of {tensor.n_bytes}"
            file.write(data.data)
            _pad(file)
        return file.tell()


def _pad(file: BinaryIO) -> None:
    file.write(bytes(-file.tell() % ALIGNMENT))


def _text(text: str) -> bytes:
    data = text.encode("utf-8")
    return struct.pack("<Q", len(data)) + data


def _value(value: Any) -> bytes:
    """Type and value of a metadata entry."""
    if not isinstance(value, list):
        return struct.pack("<I", _type_of(value)) + _plain(value)
    kind = _type_of(value[0]) if value else STRING
    kind = INT32 if kind == UINT32 else kind
    head = struct.pack("<IIQ", ARRAY, kind, len(value))
    if kind in (INT32, FLOAT32):
        return head + struct.pack(f"<{len(value)}{'i' if kind == INT32 else 'f'}", *value)
    return head + b"".join(map(_plain, value))


def _type_of(value: Any) -> int:
    if isinstance(value, bool):
        return BOOL
    if isinstance(value, int):
        return UINT32
    if isinstance(value, float):
        return FLOAT32
    assert isinstance(value, str), f"{type(value).__name__} in the metadata"
    return STRING


def _plain(value: Any) -> bytes:
    if isinstance(value, bool):
        return struct.pack("<?", value)
    if isinstance(value, int):
        return struct.pack("<I", value)
    return struct.pack("<f", value) if isinstance(value, float) else _text(value)
