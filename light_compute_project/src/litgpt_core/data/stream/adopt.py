"""Token shards that exist -> a prepared folder that describes them; nothing is copied, or written where they are.

The folder holds meta.json, manifest.json with the places of the shards, and the tokenizer. Its fingerprint covers
names, sizes and samples of the shards, not every byte: they may have terabytes. Not here: the formats
(`token_formats`).
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from litgpt_core.core.errors import ConfigError, DataError
from litgpt_core.data.files import kind_of, missing_path
from litgpt_core.data.prepared import read_meta
from litgpt_core.data.prepared_folder import (
    content_settings,
    find_or_make,
    fingerprint_of,
    save_tokenizer,
    tokenizer_facts,
    tokenizer_identity,
    write_meta,
)
from litgpt_core.data.settings import cache_folder
from litgpt_core.data.shards import token_dtype
from litgpt_core.data.stream.finish import sampled_references
from litgpt_core.data.stream.inputs import is_address
from litgpt_core.data.stream.manifest import REMOTE_BLOCKS, STREAM_FORMAT, Shard, entry_of, write_manifest
from litgpt_core.data.stream.remote_prepared import META, describe_remote, refuse_other_kinds
from litgpt_core.data.stream.token_formats import FoundTokens, find_tokens, list_shard_files
from litgpt_core.data.stream.token_row import TokenRow
from litgpt_core.data.stream_settings import TokensSettings
from litgpt_core.tokenizers.base import Tokenizer
from litgpt_core.tokenizers.registry import train as train_tokenizer
from litgpt_core.tokenizers.settings import ByteSettings, PretrainedSettings, TokenizerSettings

logger = logging.getLogger(__name__)

_SAMPLES, _SAMPLE_TOKENS = 16, 1 << 15
_AT_ONCE = 1 << 20


def adopt(data: TokensSettings, settings: TokenizerSettings) -> Path:
    """The folder that describes the shards at `data.path`; for a prepared folder, that one.

    Raises:
        ConfigError: The tokenizer would be trained: ids belong to the one that made them.
        DataError: There are no shards, one is damaged, or an id is outside the tokenizer's vocabulary.
    """
    prepared = _prepared(data)
    if prepared is not None:
        return prepared
    if not isinstance(settings, PretrainedSettings | ByteSettings):
        raise ConfigError(
            f"data=tokens with tokenizer={settings.kind}: token ids belong to the tokenizer that made them",
            needed="that tokenizer",
            fix="tokenizer=pretrained tokenizer.path=DIR",
        )
    tokenizer = train_tokenizer(settings, ())
    raw_dtype = token_dtype(tokenizer.vocab_size) if data.dtype == "auto" else data.dtype
    found = find_tokens(data.path, format=data.format, dtype=raw_dtype, cache=cache_folder(data) / REMOTE_BLOCKS)
    dtype = found.dtype or raw_dtype
    found = _with_validation(found, data, width=np.dtype(dtype).itemsize)
    hashes = {
        side: [_sampled_hash(each, dtype=dtype, tokenizer=tokenizer) for each in getattr(found, side)]
        for side in ("train", "val")
    }
    content = {
        "format_version": STREAM_FORMAT,
        "data": content_settings(data),
        "tokenizer": tokenizer_identity(settings),
        "dtype": dtype,
        "shards": hashes,
    }
    fingerprint = fingerprint_of(content)

    def build(work: Path) -> None:
        saved = save_tokenizer(work, settings, ())
        _describe(work, data, saved, found=found, dtype=dtype, settings=settings, fingerprint=fingerprint)

    return find_or_make(data, fingerprint=fingerprint, build=build)


def _prepared(data: TokensSettings) -> Path | None:
    """The prepared folder at `data.path`, or the description of the one at that address; None for bare shards."""
    if is_address(data.path):
        listed = list_shard_files(data.path, cache=cache_folder(data) / REMOTE_BLOCKS)
        names = {str(file.path): file for file in listed}
        if data.format == "prepared" or (data.format == "auto" and META in names):
            return describe_remote(data, names)
        return None
    path = Path(data.path).expanduser()
    if kind_of(path) == "missing":
        raise missing_path(path)
    if data.format == "prepared" or (data.format == "auto" and (path / META).is_file()):
        refuse_other_kinds(read_meta(path), place=str(path))
        logger.info("data %s: using %s with its own tokenizer", data.name, path)
        return path.absolute()
    return None


def _with_validation(found: FoundTokens, data: TokensSettings, *, width: int) -> FoundTokens:
    """Shards named after validation, cut at `val_tokens`; where there are none, the end of the row is held out."""
    if found.val:
        return replace(found, val=_first(found.val, data.val_tokens))
    total = sum(shard.tokens for shard in found.train)
    held_out = min(data.val_tokens, int(total * data.val_fraction))
    if held_out < 2 or total - held_out < 2:
        raise DataError(
            f"{data.path} holds {total:,} tokens, of which {held_out:,} would be held out",
            needed="at least 2 tokens in each split",
            fix="more tokens, a larger data.val_fraction, or a shard named after validation",
        )
    return replace(found, train=_first(found.train, total - held_out), val=_last(found.train, held_out, width=width))


def _first(shards: Sequence[Shard], tokens: int) -> tuple[Shard, ...]:
    kept, left = list[Shard](), tokens
    for shard in shards:
        if left <= 0:
            break
        kept.append(replace(shard, tokens=min(shard.tokens, left)))
        left -= shard.tokens
    return tuple(kept)


def _last(shards: Sequence[Shard], tokens: int, *, width: int) -> tuple[Shard, ...]:
    kept, left = list[Shard](), tokens
    for shard in reversed(shards):
        if left <= 0:
            break
        taken = min(shard.tokens, left)
        kept.append(replace(shard, offset=shard.offset + (shard.tokens - taken) * width, tokens=taken))
        left -= taken
    return tuple(reversed(kept))


def _sampled_hash(shard: Shard, *, dtype: str, tokenizer: Tokenizer) -> list[Any]:
    """Name, place, size and the hash of some segments; their ids are checked against the vocabulary."""
    row = TokenRow([shard], dtype=dtype)
    digest = hashlib.sha256()
    for i in range(_SAMPLES):
        ids = row.span(begin := i * row.tokens // _SAMPLES, min(begin + _SAMPLE_TOKENS, row.tokens))
        if ids.size and int(ids.max()) >= tokenizer.vocab_size:
            raise DataError(
                f"{shard.path} holds the id {int(ids.max()):,} near token {begin:,}; the tokenizer has "
                f"{tokenizer.vocab_size:,} ids",
                needed="the tokenizer that made the shards, and the right type of numbers",
                fix="tokenizer.path=DIR, or data.dtype=uint16 or uint32",
            )
        digest.update(ids.tobytes())
    place = [] if shard.remote is None else [shard.remote.address]
    return [shard.path.name, shard.offset, shard.tokens, digest.hexdigest(), *place]


def _describe(
    work: Path,
    data: TokensSettings,
    tokenizer: Tokenizer,
    *,
    found: FoundTokens,
    dtype: str,
    settings: TokenizerSettings,
    fingerprint: str,
) -> None:
    sides = {"train": found.train, "val": found.val}
    shards = {side: [entry_of(each) for each in listed] for side, listed in sides.items()}
    text_bytes, documents = _measure(found.val, dtype=dtype, tokenizer=tokenizer)
    tokens = {side: sum(each.tokens for each in listed) for side, listed in sides.items()}
    manifest = {"format_version": STREAM_FORMAT, "fingerprint": fingerprint, "dtype": dtype, "shards": shards}
    meta: dict[str, Any] = {
        "format_version": STREAM_FORMAT,
        "name": data.name,
        "kind": data.kind,
        "data_settings": content_settings(data),
        "shard_format": found.format,
        "manifest_sha256": write_manifest(work, manifest),
        "splits": {
            "train": {"tokens": tokens["train"]},
            "val": {"tokens": tokens["val"], "bytes": text_bytes, "documents": documents},
        },
        "shards": {side: len(listed) for side, listed in sides.items()},
        "bytes_per_token": {"val": text_bytes / tokens["val"]},
        "dtype": dtype,
        "append_eos": True,
        "tokenizer": tokenizer_facts(tokenizer),
        "reference_losses": sampled_references(sides, dtype=dtype, vocab_size=tokenizer.vocab_size),
    }
    write_meta(work, meta, settings=settings, fingerprint=fingerprint)
    logger.info(
        "data %s: %s shards of the format %s, %s train and %s val tokens",
        data.name,
        f"{sum(map(len, sides.values())):,}",
        found.format,
        f"{tokens['train']:,}",
        f"{tokens['val']:,}",
    )


def _measure(shards: Sequence[Shard], *, dtype: str, tokenizer: Tokenizer) -> tuple[int, int]:
    """(UTF-8 bytes of the text, documents) of the held-out tokens."""
    row = TokenRow(shards, dtype=dtype)
    parts_of = [tokenizer.token_bytes(token_id) for token_id in range(tokenizer.vocab_size)]
    known = all(each is not None for each in parts_of)
    lengths = np.array([len(each or b"") for each in parts_of], dtype=np.int64)
    text_bytes = documents = 0
    for begin in range(0, row.tokens, _AT_ONCE):
        ids = row.span(begin, begin + _AT_ONCE)
        if int(ids.max()) >= tokenizer.vocab_size:
            raise DataError(
                f"the held-out shards hold the id {int(ids.max()):,}; the tokenizer has {tokenizer.vocab_size:,} ids",
                needed="the tokenizer that made the shards",
                fix="tokenizer.path=DIR",
            )
        documents += int((ids == tokenizer.eos_id).sum())
        text_bytes += int(lengths[ids].sum()) if known else len(tokenizer.decode(ids.tolist()).encode("utf-8"))
    if not text_bytes:
        raise DataError("the held-out tokens are no text", needed="tokens of text", fix="another data.val_tokens")
    return text_bytes, documents
