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

import re
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from litgpt_core.core.errors import DataError
from litgpt_core.data.stream.manifest import Shard

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


def find_tokens(path: Path, *, format: str, dtype: str) -> FoundTokens:
    """The shards below a path.

    Args:
        path: A folder, or one shard.
        format: As `data.format`; `auto` recognises.
        dtype: Of raw files.

    Raises:
        DataError: There are none, or one is damaged.
    """
    suffixes = {"datatrove": [".ds"], "olmo": [".npy"], "megatron": [".idx"]}.get(format, [".bin"])
    if format == "auto":
        suffixes = [".ds", ".idx", ".npy", ".bin"]
    for suffix in suffixes:
        files = sorted(path.rglob(f"*{suffix}")) if path.is_dir() else [path]
        files = [file for file in files if file.suffix == suffix and not file.name.startswith(".")]
        if files:
            return _of_files(files, suffix=suffix, format=format, dtype=dtype)
    raise DataError(
        f"{path} holds no token shards" + ("" if format == "auto" else f" of the format {format}"),
        needed="files that end with .ds, .idx and .bin, .npy, or .bin",
        fix="data.path=FOLDER_OF_SHARDS, or data=text for text",
    )


def _of_files(files: list[Path], *, suffix: str, format: str, dtype: str) -> FoundTokens:
    found_as = {".ds": "datatrove", ".idx": "megatron", ".npy": "olmo"}.get(suffix) or (
        "llmc" if format == "llmc" or (format == "auto" and _is_llmc(files[0])) else "nanogpt"
    )

    def read(file: Path) -> tuple[Shard, str | None]:
        if found_as == "llmc":
            return _llmc(file)
        if found_as == "megatron":
            return _megatron(file)
        return _numpy(file, dtype=dtype) if found_as == "olmo" else (_raw(file, dtype=dtype), None)

    train, val, types = list[Shard](), list[Shard](), set[str | None]()
    for file in files:
        if _TEST.search(file.stem.lower()):
            continue
        shard, kind = read(file)
        types.add(kind)
        if shard.tokens:
            (val if _VALIDATION.search(file.stem.lower()) else train).append(shard)
    if len(types) > 1:
        raise DataError(
            f"the shards below {files[0].parent} hold numbers of different types: {sorted(map(str, types))}",
            needed="shards of one tokenizer",
            fix="data.path=FOLDER with those of one corpus",
        )
    if not train:
        raise DataError(f"no shard below {files[0].parent} is for training", needed="shards that are not all named val")
    return FoundTokens(format=found_as, dtype=types.pop(), train=tuple(train), val=tuple(val))


def _raw(file: Path, *, dtype: str, offset: int = 0) -> Shard:
    size, width = file.stat().st_size - offset, np.dtype(dtype).itemsize
    if size % width:
        raise DataError(
            f"{file} has {size:,} bytes, which is not a whole number of {dtype} tokens",
            needed=f"a multiple of {width} bytes; the file is cut off, or the type is another",
            fix="data.dtype=uint16 or uint32, or copy the file again",
        )
    return Shard(path=file, offset=offset, tokens=size // width)


def _is_llmc(file: Path) -> bool:
    with file.open("rb") as opened:
        head = opened.read(12)
    return len(head) == 12 and struct.unpack("<3i", head)[:2] in {(magic, each[0]) for magic, each in LLMC.items()}


def _llmc(file: Path) -> tuple[Shard, str]:
    with file.open("rb") as opened:
        head = opened.read(LLMC_HEADER)
    magic, version, count = struct.unpack("<3i", head[:12]) if len(head) == LLMC_HEADER else (0, 0, 0)
    if LLMC.get(magic, (None,))[0] != version or count < 0:
        raise DataError(
            f"{file} has no header of llm.c (it begins with {magic}, version {version})",
            needed="20240520 and version 1, or 20240801 and version 7",
            fix="data.format=nanogpt for files without a header",
        )
    dtype = LLMC[magic][1]
    needed = LLMC_HEADER + count * np.dtype(dtype).itemsize
    if file.stat().st_size != needed:
        raise DataError(
            f"{file} has {file.stat().st_size:,} bytes; its header names {count:,} tokens, {needed:,} bytes",
            needed="an intact file",
            fix="copy or download it again",
        )
    return Shard(path=file, offset=LLMC_HEADER, tokens=count), dtype


def _megatron(index: Path) -> tuple[Shard, str]:
    with index.open("rb") as opened:
        head = opened.read(len(MEGATRON_MAGIC) + 8 + 1 + 8 + 8)
        if not head.startswith(MEGATRON_MAGIC) or len(head) < len(MEGATRON_MAGIC) + 25:
            raise DataError(f"{index} is no index of Megatron", needed="a file that begins with MMIDIDX")
        version, kind, sequences, _ = struct.unpack("<QBQQ", head[len(MEGATRON_MAGIC) :])
        lengths = np.fromfile(opened, dtype="<i4", count=sequences)
    if version != 1 or kind not in MEGATRON_TYPES:
        raise DataError(
            f"{index}: version {version}, numbers of kind {kind}",
            needed="version 1 with int32 (4) or uint16 (8)",
            fix="write the data set anew with a vocabulary of ids below 2^31",
        )
    dtype = MEGATRON_TYPES[kind]
    shard = _raw(index.with_suffix(".bin"), dtype=dtype)
    if len(lengths) != sequences or int(lengths.sum(dtype=np.int64)) != shard.tokens:
        raise DataError(
            f"{index} names {int(lengths.sum(dtype=np.int64)):,} tokens, {shard.path.name} holds {shard.tokens:,}",
            needed="an index and tokens that belong together",
            fix="copy both files again",
        )
    return shard, dtype


def _numpy(file: Path, *, dtype: str) -> tuple[Shard, str | None]:
    with file.open("rb") as opened:
        if opened.read(6) != b"\x93NUMPY":
            return _raw(file, dtype=dtype), None
        opened.seek(0)
        version = np.lib.format.read_magic(opened)
        try:
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
