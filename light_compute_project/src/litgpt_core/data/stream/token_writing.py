"""The tokens of a prepared folder in the format of another project: the reverse of `token_formats`, and its test.

The tokenizer's files travel along, so `data=tokens data.path=OUT tokenizer=pretrained tokenizer.path=OUT/tokenizer`
trains on the same tokens. In constant memory but for Megatron's index, which takes 20 bytes per document.
"""

from __future__ import annotations

import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from litgpt_core.core.directories import new_directory
from litgpt_core.core.errors import ConfigError, DataError
from litgpt_core.core.replaceable import refuse_taken
from litgpt_core.data.prepared import PreparedData
from litgpt_core.data.stream.token_formats import LLMC, LLMC_HEADER, MEGATRON_MAGIC, MEGATRON_TYPES
from litgpt_core.data.stream.token_row import TokenRow, Tokens

FORMATS = ("nanogpt", "llmc", "megatron", "olmo", "datatrove")
LLMC_SHARD_TOKENS = 100_000_000
"""As in FineWeb's shards for llm.c and modded-nanogpt."""
_AT_ONCE = 1 << 22


def write_tokens(prepared: PreparedData, target: Path, *, format: str) -> dict[str, int]:
    """Write both splits of a prepared folder of text into a new folder; tokens by split.

    Args:
        prepared: The folder.
        target: A folder that does not exist.
        format: One of `FORMATS`.

    Raises:
        ConfigError: There is no such format.
        DataError: Conversations, or tokens that the format cannot hold.
        CheckpointError: `target` exists.
    """
    if format not in FORMATS:
        raise ConfigError(f"--to {format}: there is no such format", needed=f"one of {', '.join(FORMATS)}")
    if prepared.meta.get("kind") == "chat":
        raise DataError(f"{prepared.directory} holds conversations", needed="a prepared folder of text")
    write: Callable[[PreparedData, Path, str, TokenRow], None] = {
        "nanogpt": _nanogpt,
        "llmc": _llmc,
        "megatron": _megatron,
        "olmo": _olmo,
        "datatrove": _datatrove,
    }[format]
    refuse_taken(target, source=prepared.directory, force=False)
    counts = {}
    with new_directory(target) as work:
        for side in ("train", "val"):
            row = TokenRow(prepared.shards(side), dtype=prepared.dtype)
            write(prepared, work, side, row)
            counts[side] = row.tokens
        shutil.copytree(prepared.tokenizer_dir, work / "tokenizer")
    return counts


def _blocks(row: TokenRow, begin: int = 0, end: int | None = None) -> Iterator[Tokens]:
    end = row.tokens if end is None else end
    for at in range(begin, end, _AT_ONCE):
        yield row.span(at, min(at + _AT_ONCE, end))


def _write_raw(path: Path, blocks: Iterator[Tokens], *, head: bytes = b"") -> None:
    with path.open("wb") as file:
        file.write(head)
        for block in blocks:
            file.write(block.tobytes())


def _ends(prepared: PreparedData, row: TokenRow) -> Iterator[npt.NDArray[np.int64]]:
    """Where each document ends, in tokens; what follows the last end of a document is one more."""
    last = 0
    for number, block in enumerate(_blocks(row)):
        ends = np.flatnonzero(block == prepared.eos_id).astype(np.int64) + 1 + number * _AT_ONCE
        if ends.size:
            last = int(ends[-1])
            yield ends
    if last < row.tokens:
        yield np.array([row.tokens], dtype=np.int64)


def _nanogpt(prepared: PreparedData, work: Path, side: str, row: TokenRow) -> None:
    if prepared.dtype != "uint16":
        raise DataError(
            f"{prepared.directory} holds {prepared.dtype} tokens; nanoGPT reads uint16",
            needed="a vocabulary of at most 65,536 ids",
            fix="--to llmc, megatron, olmo or datatrove",
        )
    _write_raw(work / f"{side}.bin", _blocks(row))


def _llmc(prepared: PreparedData, work: Path, side: str, row: TokenRow) -> None:
    magic, version = next((magic, each[0]) for magic, each in LLMC.items() if each[1] == prepared.dtype)
    for number, begin in enumerate(range(0, row.tokens, LLMC_SHARD_TOKENS)):
        end = min(begin + LLMC_SHARD_TOKENS, row.tokens)
        head = struct.pack("<3i", magic, version, end - begin).ljust(LLMC_HEADER, b"\0")
        _write_raw(work / f"{prepared.meta['name']}_{side}_{number:06d}.bin", _blocks(row, begin, end), head=head)


def _megatron(prepared: PreparedData, work: Path, side: str, row: TokenRow) -> None:
    kind, width = next((k, np.dtype(t).itemsize) for k, t in MEGATRON_TYPES.items() if t == prepared.dtype)
    ends = np.concatenate(list(_ends(prepared, row)))
    begins = np.concatenate([[0], ends[:-1]])
    if int((ends - begins).max()) >= 1 << 31 or (prepared.dtype == "uint32" and prepared.vocab_size > 1 << 31):
        raise DataError("a document has 2^31 tokens or more", needed="shorter ones for Megatron", fix="--to olmo")
    head = MEGATRON_MAGIC + struct.pack("<QBQQ", 1, kind, len(ends), len(ends) + 1)
    with (work / f"{side}.idx").open("wb") as file:
        file.write(head)
        file.write((ends - begins).astype("<i4").tobytes())
        file.write((begins * width).astype("<i8").tobytes())
        file.write(np.arange(len(ends) + 1, dtype="<i8").tobytes())
    _write_raw(work / f"{side}.bin", _blocks(row))


def _olmo(prepared: PreparedData, work: Path, side: str, row: TokenRow) -> None:
    _write_raw(work / f"{side}-00000.npy", _blocks(row))


def _datatrove(prepared: PreparedData, work: Path, side: str, row: TokenRow) -> None:
    _write_raw(work / f"{side}-00000.ds", _blocks(row))
    with (work / f"{side}-00000.ds.index").open("wb") as file:
        for ends in _ends(prepared, row):
            file.write(ends.astype("<u8").tobytes())
