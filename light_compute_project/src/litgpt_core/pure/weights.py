"""Weights without torch: `lit_model.pth`, which is a zip archive of a pickle and raw numbers, read and written.

    archive/data.pkl     {name: _rebuild_tensor_v2((storage "0"), offset, shape, strides)}
    archive/data/0       the numbers of storage 0, one after the other

A pickle may name any function of Python and have it called, so `pickle.load` is never used: `_Reader` answers to three
names, torch's function above, torch's storage types and OrderedDict, and refuses every other before anything runs.
"""

from __future__ import annotations

import io
import pickle
import struct
import sys
import zipfile
from array import array
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import reduce
from itertools import accumulate, repeat
from operator import mul
from pathlib import Path
from typing import Any

from litgpt_core.core.errors import CheckpointError
from litgpt_core.core.files import replacing
from litgpt_core.core.torch_file import check_torch_file

MOST_PICKLE_BYTES = 64 << 20
"""Names and shapes of a model of a trillion weights need less."""

_FORMATS = {"FloatStorage": "f", "DoubleStorage": "d", "HalfStorage": "e", "BFloat16Storage": "bfloat16"}
_SIZES = {"f": 4, "d": 8, "e": 2, "bfloat16": 2}


@dataclass(frozen=True)
class Tensor:
    """Numbers in rows: `values[i * columns + j]` for a matrix."""

    shape: tuple[int, ...]
    values: array[float]

    def rows(self) -> list[list[float]]:
        """The numbers as one list for each value of the first dimensions; a vector is one row."""
        columns = self.shape[-1] if self.shape else 1
        flat = self.values.tolist()
        return [flat[at : at + columns] for at in range(0, len(flat), columns)]


def read_weights(file: Path) -> dict[str, Tensor]:
    """The state dict in `file`; two names of the same numbers share them.

    Raises CheckpointError for a file that is missing, cut off, compressed, runs code, or holds something else.
    """
    try:
        check_torch_file(file)
        with zipfile.ZipFile(file) as archive:
            content = _Reader(archive, file).load()
    except FileNotFoundError:
        raise CheckpointError(f"{file} does not exist.", needed="a file that torch.save wrote") from None
    except CheckpointError:
        raise
    except Exception as problem:  # a damaged pickle can raise anything
        raise _damaged(file, f"{type(problem).__name__}: {problem}") from problem
    if isinstance(content, dict) and isinstance(content.get("model"), dict):
        content = content["model"]
    if not isinstance(content, dict) or not all(isinstance(each, Tensor) for each in content.values()):
        raise CheckpointError(f"{file} does not hold a state dict.", needed="{name: tensor}, or that under 'model'")
    return {str(name): tensor for name, tensor in content.items()}


def _damaged(file: Path, what: str) -> CheckpointError:
    return CheckpointError(
        f"{file} cannot be read: {what}.",
        needed="a whole file that torch.save wrote, of tensors alone",
        fix="take another checkpoint of the run, or save (copy, download) this one again",
    )


class _Storage:
    """The raw numbers of one entry of the archive."""

    def __init__(self, name: str) -> None:
        self.name = name


class _Reader(pickle.Unpickler):
    """Reads the pickle of one archive, and of every storage that it names the numbers."""

    def __init__(self, archive: zipfile.ZipFile, file: Path) -> None:
        self.archive, self.file = archive, file
        entries = {entry.filename: entry for entry in archive.infolist()}
        pickles = [name for name in entries if name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise _damaged(file, "it is a zip archive, but not one of torch's")
        self.folder, self.entries = pickles[0].removesuffix("data.pkl"), entries
        whole = file.stat().st_size
        if any(entry.compress_type != zipfile.ZIP_STORED or entry.file_size > whole for entry in entries.values()):
            raise _damaged(file, "its entries are compressed, which torch.save never does")
        if entries[pickles[0]].file_size > MOST_PICKLE_BYTES:
            raise _damaged(file, f"its pickle has {entries[pickles[0]].file_size:,} bytes")
        order = self.folder + "byteorder"
        self.swapped = order in entries and archive.read(order) != sys.byteorder.encode()
        self.storages: dict[str, array[float]] = {}
        self.tensors: dict[tuple[Any, ...], Tensor] = {}
        super().__init__(io.BytesIO(archive.read(pickles[0])))

    def find_class(self, module: str, name: str) -> Any:
        """What a name in the pickle means: three are known."""
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return self.rebuild
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch" and name in _FORMATS:
            return _Storage(name)
        raise _damaged(self.file, f"it names {module}.{name}, which is no tensor of float32, 64, 16 or bfloat16")

    def persistent_load(self, pid: Any) -> tuple[str, array[float]]:
        """The numbers that ("storage", type, entry, device, length) names, with the entry."""
        _, kind, key, _, _ = pid
        if key not in self.storages:
            data = self.archive.read(f"{self.folder}data/{key}")
            self.storages[key] = _numbers(data, _FORMATS[kind.name], swapped=self.swapped)
        return key, self.storages[key]

    def rebuild(self, storage: Any, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: Any) -> Tensor:
        """The tensor of this shape that begins at `offset`; a stride is the step to the next of its dimension."""
        key, numbers = storage
        known = (key, offset, shape, strides)
        if known not in self.tensors:
            count: int = reduce(mul, shape, 1)
            last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
            if min((offset, *shape, *strides), default=0) < 0 or (count and max(last + 1, count) > len(numbers)):
                raise _damaged(self.file, f"a tensor of shape {shape} reaches beyond its {len(numbers):,} numbers")
            values = numbers[offset : offset + count]
            if strides != _contiguous(shape):
                places = [offset]
                for size, stride in zip(shape, strides, strict=True):
                    places = [place + step * stride for place in places for step in range(size)]
                values = array(numbers.typecode, [numbers[place] for place in places])
            self.tensors[known] = Tensor(tuple(shape), values)
        return self.tensors[known]


def _contiguous(shape: Iterable[int]) -> tuple[int, ...]:
    """Strides of numbers that lie row after row."""
    return tuple(accumulate(reversed([*shape, 1][1:]), mul))[::-1] if shape else ()


def _numbers(data: bytes, kind: str, *, swapped: bool) -> array[float]:
    if len(data) % _SIZES[kind]:
        raise ValueError(f"{len(data)} bytes are no whole numbers")
    if kind == "bfloat16":  # the upper half of a float32
        halves = array("H", data)
        if swapped:
            halves.byteswap()
        return array("f", array("I", map(mul, halves, repeat(1 << 16))).tobytes())
    if kind == "e":
        order = "<" if (sys.byteorder == "little") != swapped else ">"
        return array("f", struct.unpack(f"{order}{len(data) // 2}e", data))
    values: array[float] = array(kind, data)
    if swapped:
        values.byteswap()
    return values


# --- writing


def write_weights(file: Path, weights: Mapping[str, list[list[float]]]) -> None:
    """Write matrices, and vectors as matrices of one row, in float32 and `torch.save`'s format.

    Args:
        file: Replaced at once or not at all.
        weights: Rows of each. One row of a name that is no table (of norms, biases) becomes a vector.
    """
    body = b"".join(_tensor_entry(name, str(number), rows) for number, (name, rows) in enumerate(weights.items()))
    entries = {"data.pkl": b"\x80\x02}(" + body + b"u.", "byteorder": b"little", "version": b"3\n"}
    with replacing(file) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name, data in entries.items():
            archive.writestr(_aligned(archive, f"archive/{name}"), data)
        for number, rows in enumerate(weights.values()):
            flat = [each for row in rows for each in row]
            archive.writestr(_aligned(archive, f"archive/data/{number}"), struct.pack(f"<{len(flat)}f", *flat))


def _aligned(archive: zipfile.ZipFile, name: str) -> zipfile.ZipInfo:
    """An entry whose data begin at a multiple of 64 bytes, as torch has it, so that they can be mapped into memory."""
    entry = zipfile.ZipInfo(name)
    assert archive.fp is not None
    padding = -(archive.fp.tell() + 30 + len(name) + 4) % 64
    entry.extra = struct.pack("<2sH", b"FB", padding) + bytes(padding)
    return entry


def _tensor_entry(name: str, key: str, rows: list[list[float]]) -> bytes:
    """The pickle of `name: tensor`, in opcodes: X text, J number, ( ... t tuple, c name of a function, R call it."""
    shape = [len(rows[0])] if len(rows) == 1 else [len(rows), len(rows[0])]
    count = sum(map(len, rows))
    storage = b"(" + _text("storage") + b"ctorch\nFloatStorage\n" + _text(key) + _text("cpu") + _number(count) + b"tQ"
    layout = b"".join(b"(" + b"".join(map(_number, each)) + b"t" for each in (shape, _contiguous(shape)))
    arguments = storage + _number(0) + layout + b"\x89ccollections\nOrderedDict\n)R"
    return _text(name) + b"ctorch._utils\n_rebuild_tensor_v2\n(" + arguments + b"tR"


def _text(value: str) -> bytes:
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def _number(value: int) -> bytes:
    return b"J" + struct.pack("<i", value)
