"""Folders of format 2: many shards, listed in manifest.json, whose hash meta.json holds.

    meta.json       as in format 1; `splits` add the shards up; `manifest_sha256`
    manifest.json   {"format_version": 2, "dtype": "uint16", "shards": {"train": [...], "val": [...]}, "inputs": {...}}

A shard is {file, offset, tokens, ...}: `file` is relative to the folder, or absolute for shards that lie elsewhere;
`offset` is the bytes before its first token, which headers of other formats take. Folders of format 1 have one shard
per split and no manifest.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from litgpt_core.core.parsing import parse_json, read_bytes

STREAM_FORMAT = 2
MANIFEST = "manifest.json"
MAX_MANIFEST_BYTES = 256_000_000
"""About a million shards."""


@dataclass(frozen=True, kw_only=True)
class Shard:
    """Tokens in a file, raw little-endian."""

    path: Path
    offset: int = 0
    """Bytes before the first token."""
    tokens: int


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
    for side in ("train", "val"):
        for shard in shards_of(folder, side, manifest=manifest):
            size, needed = shard.path.stat().st_size, shard.offset + shard.tokens * width
            if size < needed:
                return f"{shard.path.name} has {size:,} bytes instead of {needed:,}"
    return ""


def shards_of(folder: Path, side: str, *, manifest: dict[str, Any] | None = None) -> list[Shard]:
    """The shards of one split in order, empty ones left out; `manifest` where it was read already."""
    entries = (read_manifest(folder) if manifest is None else manifest)["shards"][side]
    return [
        Shard(path=folder / entry["file"], offset=int(entry.get("offset", 0)), tokens=int(entry["tokens"]))
        for entry in entries
        if int(entry["tokens"])
    ]
