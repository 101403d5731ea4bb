"""Token shards of other projects: recognised and located, so that they are read where they are.

    nanogpt     train.bin, val.bin         raw numbers, no header
    llmc        *.bin                      256 int32: 20240520, 1, count -> uint16, or 20240801, 7, count -> uint32
    megatron    NAME.bin with NAME.idx     b"MMIDIDX\\0\\0", version 1, kind of number, lengths, pointers, documents
    olmo        *.npy                      raw numbers without numpy's header; files with the header are read as well
    datatrove   *.ds                       raw numbers, with *.ds.index

Sources: karpathy/llm.c dev/data/data_common.py; KellerJordan/modded-nanogpt data/; NVIDIA/Megatron-LM
megatron/core/datasets/indexed_dataset.py; allenai/OLMo-core data/; huggingface/datatrove tokens/tokenizer.py.
"""

from __future__ import annotations

import io
import re
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from litgpt_core.core.errors import DataError
from litgpt_core.data.stream.inputs import is_address
from litgpt_core.data.stream.manifest import Shard
from litgpt_core.data.stream.remote import fetch_range, list_remote
from litgpt_core.data.stream.shard_cache import RemotePlace

LLMC = {20240520: (1, "uint16"), 20240801: (7, "uint32")}
"""Magic number -> version and type of the tokens."""
LLMC_HEADER = 256 * 4
MEGATRON_MAGIC = b"MMIDIDX\x00\x00"
MEGATRON_TYPES = {4: "uint32", 8: "uint16"}
"""Megatron's number of a type -> ours; its int32 holds ids, which are never negative."""

_VALIDATION = re.compile(r"(?:^|[^a-z])(?:val|valid|validation)(?:[^a-z]|$)")
_TEST = re.compile(r"(?:^|[^a-z])test(?:[^a-z]|$)")


@dataclass(frozen=True, kw_only=True)
class FoundTokens:
    """Shards by split, as their names say; no validation shards if none is named after it."""

    format: str
    dtype: str | None
    """Where the files say so."""
    train: tuple[Shard, ...]
    val: tuple[Shard, ...]


@dataclass(frozen=True, kw_only=True)
class ShardFile:
    """A file of tokens, or of an index, on this disk or at an address."""

    path: Path
    """At an address: the name within the folder."""
    size: int
    """Bytes."""
    address: str = ""
    stamp: str = ""
    cache: Path = Path()
    """Where blocks of it are kept, if it is at an address."""

    def __str__(self) -> str:
        return self.address or str(self.path)

    def beginning(self, count: int) -> bytes:
        """The first bytes."""
        if self.address:
            return fetch_range(self.address, begin=0, end=min(count, self.size))
        with self.path.open("rb") as file:
            return file.read(count)

    def shard(self, *, tokens: int, offset: int = 0) -> Shard:
        """Its tokens."""
        if not self.address:
            return Shard(path=self.path, offset=offset, tokens=tokens)
        place = RemotePlace(address=self.address, bytes=self.size, stamp=self.stamp, cache=self.cache)
        return Shard(path=self.path, offset=offset, tokens=tokens, remote=place)


def list_shard_files(path: str, *, cache: Path) -> list[ShardFile]:
    """The files of a folder, or that one file, sorted by name; hidden ones are left out.

    Args:
        path: On this disk, or an address.
        cache: Where blocks of files at an address are kept.

    Raises:
        DataError: Nothing is there.
    """
    if is_address(path):
        found = [
            ShardFile(
                path=Path(each.name), size=each.bytes, address=each.address, stamp=str(each.stamp[-1]), cache=cache
            )
            for each in list_remote(path, "**/*")
        ]
        return sorted(found, key=lambda each: each.path)
    place = Path(path).expanduser()
    files = sorted(place.rglob("*")) if place.is_dir() else [place]
    files += [place.with_suffix(".bin")] if place.suffix == ".idx" else []
    return [
        ShardFile(path=file, size=file.stat().st_size)
        for file in files
        if file.is_file() and not file.name.startswith(".")
    ]


def find_tokens(path: str, *, format: str, dtype: str, cache: Path) -> FoundTokens:
    """The shards below a path.

    Args:
        path: A folder, or one shard; on this disk, or an address.
        format: As `data.format`; `auto` recognises.
        dtype: Of raw files.
        cache: Where blocks of shards at an address are kept.

    Raises:
        DataError: There are none, or one is damaged.
    """
    suffixes = {"datatrove": [".ds"], "olmo": [".npy"], "megatron": [".idx"]}.get(format, [".bin"])
    if format == "auto":
        suffixes = [".ds", ".idx", ".npy", ".bin"]
    listed = list_shard_files(path, cache=cache)
    for suffix in suffixes:
        files = [file for file in listed if file.path.suffix == suffix]
        if files:
            return _of_files(files, listed, suffix=suffix, format=format, dtype=dtype)
    raise DataError(
        f"{path} holds no token shards" + ("" if format == "auto" else f" of the format {format}"),
        needed="files that end with .ds, .idx and .bin, .npy, or .bin",
        fix="data.path=FOLDER_OF_SHARDS, or data=text for text",
    )


def _of_files(files: list[ShardFile], listed: list[ShardFile], *, suffix: str, format: str, dtype: str) -> FoundTokens:
    found_as = {".ds": "datatrove", ".idx": "megatron", ".npy": "olmo"}.get(suffix) or (
        "llmc" if format == "llmc" or (format == "auto" and _is_llmc(files[0])) else "nanogpt"
    )

    def read(file: ShardFile) -> tuple[Shard, str | None]:
        if found_as == "llmc":
            return _llmc(file)
        if found_as == "megatron":
            return _megatron(file, listed)
        return _numpy(file, dtype=dtype) if found_as == "olmo" else (_raw(file, dtype=dtype), None)

    train, val, types = list[Shard](), list[Shard](), set[str | None]()
    for file in files:
        name = file.path.stem.lower()
        if _TEST.search(name):
            continue
        shard, kind = read(file)
        types.add(kind)
        if shard.tokens:
            (val if _VALIDATION.search(name) else train).append(shard)
    if len(types) > 1:
        raise DataError(
            f"the shards below {files[0].path.parent} hold numbers of different types: {sorted(map(str, types))}",
            needed="shards of one tokenizer",
            fix="data.path=FOLDER with those of one corpus",
        )
    if not train:
        raise DataError(
            f"no shard below {files[0].path.parent} is for training", needed="shards that are not all named val"
        )
    return FoundTokens(format=found_as, dtype=types.pop(), train=tuple(train), val=tuple(val))


def _raw(file: ShardFile, *, dtype: str, offset: int = 0) -> Shard:
    size, width = file.size - offset, np.dtype(dtype).itemsize
    if size % width:
        raise DataError(
            f"{file} has {size:,} bytes, which is not a whole number of {dtype} tokens",
            needed=f"a multiple of {width} bytes; the file is cut off, or the type is another",
            fix="data.dtype=uint16 or uint32, or copy the file again",
        )
    return file.shard(offset=offset, tokens=size // width)


def _is_llmc(file: ShardFile) -> bool:
    head = file.beginning(12)
    return len(head) == 12 and struct.unpack("<3i", head)[:2] in {(magic, each[0]) for magic, each in LLMC.items()}


def _llmc(file: ShardFile) -> tuple[Shard, str]:
    head = file.beginning(LLMC_HEADER)
    magic, version, count = struct.unpack("<3i", head[:12]) if len(head) == LLMC_HEADER else (0, 0, 0)
    if LLMC.get(magic, (None,))[0] != version or count < 0:
        raise DataError(
            f"{file} has no header of llm.c (it begins with {magic}, version {version})",
            needed="20240520 and version 1, or 20240801 and version 7",
            fix="data.format=nanogpt for files without a header",
        )
    dtype = LLMC[magic][1]
    needed = LLMC_HEADER + count * np.dtype(dtype).itemsize
    if file.size != needed:
        raise DataError(
            f"{file} has {file.size:,} bytes; its header names {count:,} tokens, {needed:,} bytes",
            needed="an intact file",
            fix="copy or download it again",
        )
    return file.shard(offset=LLMC_HEADER, tokens=count), dtype


def _megatron(index: ShardFile, listed: list[ShardFile]) -> tuple[Shard, str]:
    raw, start = index.beginning(index.size), len(MEGATRON_MAGIC) + 25
    if not raw.startswith(MEGATRON_MAGIC) or len(raw) < start:
        raise DataError(f"{index} is no index of Megatron", needed="a file that begins with MMIDIDX")
    version, kind, sequences, _ = struct.unpack("<QBQQ", raw[len(MEGATRON_MAGIC) : start])
    count = min(sequences, (len(raw) - start) // 4)
    lengths = np.frombuffer(raw[start : start + 4 * count], dtype="<i4")
    if version != 1 or kind not in MEGATRON_TYPES:
        raise DataError(
            f"{index}: version {version}, numbers of kind {kind}",
            needed="version 1 with int32 (4) or uint16 (8)",
            fix="write the data set anew with a vocabulary of ids below 2^31",
        )
    dtype = MEGATRON_TYPES[kind]
    tokens = next((file for file in listed if file.path == index.path.with_suffix(".bin")), None)
    if tokens is None:
        raise DataError(f"{index} is there, its .bin is not", needed="both files", fix="copy both files again")
    shard = _raw(tokens, dtype=dtype)
    if len(lengths) != sequences or int(lengths.sum(dtype=np.int64)) != shard.tokens:
        raise DataError(
            f"{index} names {int(lengths.sum(dtype=np.int64)):,} tokens, {shard.path.name} holds {shard.tokens:,}",
            needed="an index and tokens that belong together",
            fix="copy both files again",
        )
    return shard, dtype


def _numpy(file: ShardFile, *, dtype: str) -> tuple[Shard, str | None]:
    opened = io.BytesIO(file.beginning(1 << 16))
    if opened.read(6) != b"\x93NUMPY":
        return _raw(file, dtype=dtype), None
    opened.seek(0)
    try:
        version = np.lib.format.read_magic(opened)
        if version == (1, 0):
            shape, _, found = np.lib.format.read_array_header_1_0(opened)
        else:
            shape, _, found = np.lib.format.read_array_header_2_0(opened)
    except ValueError as error:
        raise DataError(f"{file} is a damaged numpy file: {error}", needed="an intact file") from error
    offset = opened.tell()
    if len(shape) != 1 or found.str not in ("<u2", "<u4", "<i4"):
        raise DataError(
            f"{file} holds an array of shape {shape} and type {found}",
            needed="one dimension of uint16, uint32 or int32",
            fix="save the ids as such an array",
        )
    kind = "uint16" if found.itemsize == 2 else "uint32"
    return _raw(file, dtype=kind, offset=offset), kind
