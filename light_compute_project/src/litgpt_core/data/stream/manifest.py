"""Folders of format 2: many shards, listed in manifest.json, whose hash meta.json holds.

    meta.json       as in format 1; `splits` add the shards up; `manifest_sha256`
    manifest.json   {"format_version": 2, "dtype": "uint16", "shards": {"train": [...], "val": [...]}, "inputs": {...}}

A shard is {file, offset, tokens, ...}: `file` is relative to the folder, or absolute for shards that lie elsewhere;
`offset` is the bytes before its first token, which headers of other formats take. A shard at an address has that as
`file`, and `bytes` and `stamp` of the whole file. Folders of format 1 have one shard per split and no manifest.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from litgpt_core.core.parsing import parse_json, read_bytes
from litgpt_core.data.stream.inputs import is_address
from litgpt_core.data.stream.shard_cache import CACHE_BYTES, RemotePlace

STREAM_FORMAT = 2
MANIFEST = "manifest.json"
REMOTE_BLOCKS = ".remote-blocks"
"""Folder of cached blocks, in `data.cache_dir`."""
MAX_MANIFEST_BYTES = 256_000_000
"""About a million shards."""


@dataclass(frozen=True, kw_only=True)
class Shard:
    """Tokens in a file, raw little-endian."""

    path: Path
    """Of a shard at an address: its name, for messages."""
    offset: int = 0
    """Bytes before the first token."""
    tokens: int
    remote: RemotePlace | None = None
    """Where it is, if not on this disk."""


def write_manifest(work: Path, manifest: dict[str, Any]) -> str:
    """Write manifest.json into a folder that is being made; its SHA-256 (hex)."""
    raw = (json.dumps(manifest, indent=1, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")
    (work / MANIFEST).write_bytes(raw)
    return hashlib.sha256(raw).hexdigest()


def read_manifest(folder: Path) -> dict[str, Any]:
    """Raises OSError and ParsingError (a ValueError)."""
    value: dict[str, Any] = parse_json(
        read_bytes(folder / MANIFEST, max_bytes=MAX_MANIFEST_BYTES),
        max_bytes=MAX_MANIFEST_BYTES,
        max_values=MAX_MANIFEST_BYTES,
    )
    return value


def manifest_problem(folder: Path, meta: dict[str, Any]) -> str:
    """Why the shards of a folder must not be used, or an empty string: the manifest's hash and every size.

    Raises OSError for a missing file, and ValueError, KeyError or TypeError for a broken manifest.
    """
    raw = read_bytes(folder / MANIFEST, max_bytes=MAX_MANIFEST_BYTES)
    if hashlib.sha256(raw).hexdigest() != meta["manifest_sha256"]:
        return f"{MANIFEST} was changed"
    width = np.dtype(meta["dtype"]).itemsize
    manifest = parse_json(raw, max_bytes=MAX_MANIFEST_BYTES, max_values=MAX_MANIFEST_BYTES)
    here = str(folder)
    for entry in (entry for side in ("train", "val") for entry in manifest["shards"][side]):
        file, tokens = str(entry["file"]), int(entry["tokens"])
        if tokens and not is_address(file):
            size, needed = os.stat(os.path.join(here, file)).st_size, int(entry.get("offset", 0)) + tokens * width  # noqa: PTH116, PTH118
            if size < needed:
                return f"{Path(file).name} has {size:,} bytes instead of {needed:,}"
    return ""


def shards_of(
    folder: Path, side: str, *, manifest: dict[str, Any] | None = None, cache_bytes: int = CACHE_BYTES
) -> list[Shard]:
    """The shards of one split in order, empty ones left out.

    Args:
        folder: The prepared folder.
        side: `train` or `val`.
        manifest: Where it was read already.
        cache_bytes: Of blocks of shards at addresses, which are kept next to the folder.
    """
    entries = (read_manifest(folder) if manifest is None else manifest)["shards"][side]
    return [_shard(folder, entry, cache_bytes=cache_bytes) for entry in entries if int(entry["tokens"])]


def entry_of(shard: Shard) -> dict[str, Any]:
    """A shard that is not in the folder, as the manifest lists it."""
    place = {"offset": shard.offset, "tokens": shard.tokens}
    if shard.remote is None:
        return {"file": str(shard.path.absolute()), **place}
    return {"file": shard.remote.address, **place, "bytes": shard.remote.bytes, "stamp": shard.remote.stamp}


def _shard(folder: Path, entry: dict[str, Any], *, cache_bytes: int) -> Shard:
    file, offset, tokens = str(entry["file"]), int(entry.get("offset", 0)), int(entry["tokens"])
    if not is_address(file):
        return Shard(path=folder / file, offset=offset, tokens=tokens)
    place = RemotePlace(
        address=file,
        bytes=int(entry["bytes"]),
        stamp=str(entry["stamp"]),
        cache=folder.parent / REMOTE_BLOCKS,
        cache_bytes=cache_bytes,
    )
    return Shard(path=Path(file.rpartition("/")[2]), offset=offset, tokens=tokens, remote=place)
