"""A prepared folder at an address -> a small folder here that describes it: tokenizer, meta.json, shards' places."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from litgpt_core.core.errors import DataError
from litgpt_core.core.parsing import ParsingError, parse_json
from litgpt_core.data.prepared_folder import find_or_make, fingerprint_of, finish_meta
from litgpt_core.data.stream.manifest import MANIFEST, MAX_MANIFEST_BYTES, STREAM_FORMAT, entry_of, write_manifest
from litgpt_core.data.stream.token_formats import ShardFile
from litgpt_core.data.stream_settings import TokensSettings

logger = logging.getLogger(__name__)

META = "meta.json"


def refuse_other_kinds(meta: Mapping[str, Any], *, place: str) -> None:
    """DataError for a prepared folder that is not one stream of tokens."""
    if meta.get("kind") in ("chat", "mixture"):
        raise DataError(
            f"{place} holds {'conversations' if meta['kind'] == 'chat' else 'a mixture'}",
            needed="a prepared folder of text",
            fix=f"data={meta['kind']}",
        )


def describe_remote(data: TokensSettings, files: Mapping[str, ShardFile]) -> Path:
    """The folder here that describes a prepared folder at an address, found or made.

    Args:
        data: `path` is the address.
        files: Name within the folder -> file.

    Raises:
        DataError: Files are missing or do not fit each other.
    """
    meta = _json(data, files, META)
    refuse_other_kinds(meta, place=data.path)
    try:
        sides = _shards(data, meta, files)
        fingerprint = fingerprint_of({"address": data.path, "fingerprint": str(meta["fingerprint"])})
        tokenizer = {str(name): str(digest) for name, digest in meta["tokenizer"]["files"].items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _broken(data, f"{META} or {MANIFEST} is broken ({type(error).__name__}: {error})") from error

    def build(work: Path) -> None:
        (work / "tokenizer").mkdir()
        for name, digest in tokenizer.items():
            raw = _whole(data, files, f"tokenizer/{name}")
            if Path(name).name != name or hashlib.sha256(raw).hexdigest() != digest:
                raise _broken(data, f"tokenizer/{name} is not the one that {META} lists")
            (work / "tokenizer" / name).write_bytes(raw)
        manifest = {
            "format_version": STREAM_FORMAT,
            "fingerprint": fingerprint,
            "dtype": meta["dtype"],
            "shards": sides,
        }
        places = {"manifest_sha256": write_manifest(work, manifest), "format_version": STREAM_FORMAT}
        finish_meta(work, {**meta, **places, "more_files": {}, "fingerprint": fingerprint})

    logger.info("data %s: using %s with its own tokenizer; blocks are cached here", data.name, data.path)
    return find_or_make(data, fingerprint=fingerprint, build=build)


def _shards(
    data: TokensSettings, meta: dict[str, Any], files: Mapping[str, ShardFile]
) -> dict[str, list[dict[str, Any]]]:
    """The entries of each split, with addresses in place of names."""
    if meta["format_version"] == STREAM_FORMAT:
        listed = _json(data, files, MANIFEST)["shards"]
    else:
        listed = {
            side: [{"file": f"{side}.bin", "tokens": meta["splits"][side]["tokens"]}] for side in ("train", "val")
        }
    found: dict[str, list[dict[str, Any]]] = {}
    for side in ("train", "val"):
        found[side] = []
        for entry in listed[side]:
            file = files.get(str(entry["file"]))
            if file is None:
                raise _broken(data, f"{entry['file']} is missing")
            shard = file.shard(tokens=int(entry["tokens"]), offset=int(entry.get("offset", 0)))
            width = 2 if meta["dtype"] == "uint16" else 4
            if file.size < shard.offset + shard.tokens * width:
                raise _broken(data, f"{entry['file']} has {file.size:,} bytes, too few for {shard.tokens:,} tokens")
            found[side].append(entry_of(shard))
    return found


def _whole(data: TokensSettings, files: Mapping[str, ShardFile], name: str) -> bytes:
    file = files.get(name)
    if file is None or file.size > MAX_MANIFEST_BYTES:
        raise _broken(data, f"{name} is missing" if file is None else f"{name} has {file.size:,} bytes")
    return file.beginning(file.size)


def _json(data: TokensSettings, files: Mapping[str, ShardFile], name: str) -> dict[str, Any]:
    raw = _whole(data, files, name)
    try:
        value: dict[str, Any] = parse_json(raw, max_bytes=MAX_MANIFEST_BYTES, max_values=MAX_MANIFEST_BYTES)
    except ParsingError as error:
        raise _broken(data, f"{name} is not JSON: {error}") from error
    return value


def _broken(data: TokensSettings, problem: str) -> DataError:
    return DataError(
        f"{data.path} is not a usable prepared folder: {problem}",
        needed="a prepared folder of this project, uploaded completely",
        fix="upload it again",
    )
