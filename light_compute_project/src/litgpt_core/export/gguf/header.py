"""Reads a GGUF file's header: metadata and tensor descriptions. The tensors stay on disk, memory-mapped.

    4 bytes  "GGUF"        4 bytes  version        8 bytes  tensors        8 bytes  metadata entries
    entry    key (8 bytes length, UTF-8), 4 bytes type, value
    tensor   name, 4 bytes dimensions, 8 bytes each, fastest first, 4 bytes type, 8 bytes offset
    padding to the alignment, then the tensors

Such a file is untrusted input: every count and length is compared with what is left of the file before anything is read
or allocated, so a corrupted file costs one error message and neither time nor memory.
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from litgpt_core.core.errors import CheckpointError
from litgpt_core.export.gguf.layout import ALIGNMENT, ARRAY, MAGIC, SCALARS, STRING, TENSOR_TYPES, VERSIONS, TensorType

AGAIN = "download or copy the file again"
_MOST_STRINGS = 4_000_000
_MOST_DIMENSIONS = 4
_SMALLEST = {"entry": 13, "tensor": 32}
"""Bytes that an entry (key length, type, one byte) and a tensor's description take at least."""
_U32, _U64 = struct.Struct("<I"), struct.Struct("<Q")


@dataclass(frozen=True, kw_only=True)
class GGUFTensor:
    """Where a tensor is."""

    name: str
    shape: tuple[int, ...]
    """As in torch: rows first. The file stores the dimensions in reverse."""
    type: TensorType
    start: int
    """Position in the file."""
    n_bytes: int


@dataclass(frozen=True, kw_only=True)
class GGUFFile:
    """A parsed header and the mapped file."""

    path: Path
    metadata: Mapping[str, Any]
    """Numbers, booleans, strings; arrays as numpy arrays, of strings as lists."""
    tensors: Mapping[str, GGUFTensor]
    content: memoryview
    """The whole file, mapped."""

    def raw(self, tensor: GGUFTensor) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """The bytes of a tensor, (n_bytes,), not copied."""
        return np.frombuffer(self.content, dtype=np.uint8, count=tensor.n_bytes, offset=tensor.start)


def read_gguf(path: Path) -> GGUFFile:
    """Parse and check a file's header.

    Raises:
        CheckpointError: The file is missing, of another format, big-endian, of an unknown version, truncated, or
            contradicts itself. Names the entry.
    """
    path = Path(path)
    try:
        with path.open("rb") as opened:
            start = opened.read(24)
            if start[:4] != MAGIC:
                raise CheckpointError(
                    f"{path} is no GGUF file: it begins with {start[:4]!r}.", needed="a file that begins with GGUF"
                )
            content = memoryview(mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ))
    except FileNotFoundError:
        raise CheckpointError(f"{path} does not exist.", needed="a GGUF file", fix="check the path") from None
    except (OSError, ValueError) as problem:
        raise CheckpointError(f"{path} cannot be read: {problem}.", needed="a readable GGUF file") from None
    return _Parser(path, content).file()


class _Parser:
    """One pass over the header."""

    def __init__(self, path: Path, content: memoryview) -> None:
        self.path, self.content, self.at, self.size = path, content, 4, len(content)

    def file(self) -> GGUFFile:
        version = self.u32("the version")
        if version not in VERSIONS:
            swapped = int.from_bytes(version.to_bytes(4, "little"), "big")
            kind = "is big-endian" if swapped in VERSIONS else f"is of version {version}"
            raise CheckpointError(
                f"{self.path} {kind}.", needed="a little-endian GGUF file of version 2 or 3", fix="a newer conversion"
            )
        n_tensors, n_entries = self.u64("the number of tensors"), self.u64("the number of metadata entries")
        self.check(n_entries * _SMALLEST["entry"], f"{n_entries:,} metadata entries")
        metadata: dict[str, Any] = {}
        for _ in range(n_entries):
            key = self.text("a key")
            if key in metadata:
                raise self.corrupted(f"the key {key} occurs twice")
            metadata[key] = self.value(self.u32(f"the type of {key}"), key)
        self.check(n_tensors * _SMALLEST["tensor"], f"{n_tensors:,} tensors")
        described = [self.tensor() for _ in range(n_tensors)]
        alignment = metadata.get("general.alignment", ALIGNMENT)
        if type(alignment) is not int or alignment < 1 or alignment > 1 << 20 or alignment & (alignment - 1):
            raise self.corrupted(f"general.alignment is {alignment!r}")
        return GGUFFile(
            path=self.path, metadata=metadata, tensors=self.placed(described, alignment), content=self.content
        )

    # --- tensors

    def tensor(self) -> tuple[str, tuple[int, ...], TensorType, int]:
        """Name, shape, type, offset."""
        name = self.text("a tensor's name")
        dimensions = self.u32(f"the dimensions of {name}")
        if not 1 <= dimensions <= _MOST_DIMENSIONS:
            raise self.corrupted(f"the tensor {name} has {dimensions:,} dimensions")
        shape = tuple(reversed([self.u64(f"the shape of {name}") for _ in range(dimensions)]))
        number = self.u32(f"the type of {name}")
        if number not in TENSOR_TYPES:
            raise CheckpointError(
                f"The tensor {name} in {self.path} has the type number {number}, which is unknown here.",
                needed=f"one of {', '.join(kind.name for kind in TENSOR_TYPES.values())}",
                fix="a file of another type, such as Q8_0 or F16",
            )
        kind = TENSOR_TYPES[number]
        if min(shape) < 1 or shape[-1] % kind.block:
            raise self.corrupted(f"the tensor {name} of type {kind.name} has the shape {list(shape)}")
        return name, shape, kind, self.u64(f"the offset of {name}")

    def placed(
        self, described: list[tuple[str, tuple[int, ...], TensorType, int]], alignment: int
    ) -> dict[str, GGUFTensor]:
        """Tensors by name, inside the file, at aligned places, without overlaps."""
        base = -(-self.at // alignment) * alignment
        tensors: dict[str, GGUFTensor] = {}
        end, before = base, ""
        for name, shape, kind, offset in sorted(described, key=lambda item: item[3]):
            n_bytes, start = math.prod(shape) // kind.block * kind.size, base + offset
            if name in tensors:
                raise self.corrupted(f"the tensor {name} occurs twice")
            if offset % alignment:
                raise self.corrupted(f"the tensor {name} begins at {offset}, no multiple of {alignment}")
            if start < end:
                raise self.corrupted(f"the tensors {before} and {name} overlap")
            if start + n_bytes > self.size:
                raise self.corrupted(f"the tensor {name} would end at byte {start + n_bytes:,}")
            tensors[name] = GGUFTensor(name=name, shape=shape, type=kind, start=start, n_bytes=n_bytes)
            end, before = start + n_bytes, name
        return {item[0]: tensors[item[0]] for item in described}

    # --- values

    def value(self, kind: int, key: str) -> Any:
        if kind == STRING:
            return self.text(key)
        if kind == ARRAY:
            return self.array(key)
        return _plain(self.numbers(kind, 1, key)[0])

    def array(self, key: str) -> Any:
        kind, count = self.u32(f"the type of {key}"), self.u64(f"the length of {key}")
        if kind != STRING:
            return self.numbers(kind, count, key)
        if count > _MOST_STRINGS:
            raise self.corrupted(f"{key} would have {count:,} strings")
        self.check(8 * count, f"the {count:,} strings of {key}")
        return [self.text(key) for _ in range(count)]

    def numbers(self, kind: int, count: int, key: str) -> np.ndarray[Any, Any]:
        """`count` numbers, not copied. Arrays of arrays are refused: no key that is needed has one."""
        if kind not in SCALARS:
            raise self.corrupted(f"{key} has values of type {kind}")
        dtype = np.dtype(SCALARS[kind])
        self.check(dtype.itemsize * count, key)
        found = np.frombuffer(self.content, dtype=dtype, count=count, offset=self.at) if count else np.empty(0, dtype)
        self.at += dtype.itemsize * count
        return found

    def text(self, what: str) -> str:
        length = self.u64(what)
        if length > self.size - self.at:
            raise self.ends(what, length)
        self.at += length
        try:
            return str(self.content[self.at - length : self.at], "utf-8")
        except UnicodeDecodeError:
            raise self.corrupted(f"{what[:80]} is not UTF-8") from None

    def u32(self, what: str) -> int:
        self.check(4, what)
        self.at += 4
        return int(_U32.unpack_from(self.content, self.at - 4)[0])

    def u64(self, what: str) -> int:
        if self.at + 8 > self.size:
            raise self.ends(what, 8)
        self.at += 8
        return int(_U64.unpack_from(self.content, self.at - 8)[0])

    # --- checks

    def check(self, n_bytes: int, what: str) -> None:
        if n_bytes > self.size - self.at:
            raise self.ends(what, n_bytes)

    def ends(self, what: str, n_bytes: int) -> CheckpointError:
        left = self.size - self.at
        return self.corrupted(f"{what[:80]} would take {n_bytes:,} bytes, and {left:,} are left at byte {self.at:,}")

    def corrupted(self, problem: str) -> CheckpointError:
        return CheckpointError(
            f"{self.path} ({self.size:,} bytes) is truncated or corrupted: {problem}.",
            needed="the complete file",
            fix=AGAIN,
        )


def _plain(value: Any) -> Any:
    """A numpy scalar as a plain value; a float32 as the shortest decimal number that rounds to it (1e-05)."""
    return float(str(value)) if value.dtype == np.float32 else value.item()
