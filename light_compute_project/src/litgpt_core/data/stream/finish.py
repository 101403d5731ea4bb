"""What completes a prepared folder of many shards: one validation shard, reference losses, manifest.json, meta.json."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import os
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from litgpt_core.core.errors import DataError
from litgpt_core.data.ngram import reference_losses
from litgpt_core.data.prepared_folder import content_settings, tokenizer_facts, write_meta
from litgpt_core.data.settings import StreamSettings
from litgpt_core.data.shards import token_dtype
from litgpt_core.data.stream.chunk_shards import SIDES, ChunkFacts, SideFacts, index_path, shard_path
from litgpt_core.data.stream.datatrove_plan import FOLDER
from litgpt_core.data.stream.inputs import InputFile
from litgpt_core.data.stream.lottery import STREAM_RULE
from litgpt_core.data.stream.manifest import STREAM_FORMAT, Shard, shards_of, write_manifest
from litgpt_core.data.stream.readers import ReadReport
from litgpt_core.data.stream.token_row import sample_tokens
from litgpt_core.tokenizers.base import Tokenizer
from litgpt_core.tokenizers.settings import TokenizerSettings

logger = logging.getLogger(__name__)

REFERENCE_TOKENS = {"train": 1 << 22, "val": 1 << 19}
"""Of each split at most, for the reference losses: their memory grows with the different pairs of tokens."""
VALIDATION = "val-00000.ds"
"""The shard of all held-out documents."""
_BLOCK = 1 << 22


def finish_folder(
    work: Path,
    data: StreamSettings,
    settings: TokenizerSettings,
    *,
    trained: Tokenizer,
    facts: list[ChunkFacts],
    files: list[InputFile],
    share: float,
    fingerprint: str,
) -> None:
    """Complete a working folder in which every chunk is done; can be repeated after a kill.

    Args:
        work: The folder.
        data, settings: What it was made from.
        trained: Its tokenizer.
        facts: Of every chunk, in order.
        files: The inputs.
        share: Of the documents, held out.
        fingerprint: Of the folder.

    Raises:
        DataError: No row has text, or a split is empty.
    """
    totals = {side: _total(facts, side) for side in SIDES}
    report = _joined_reports(facts, data)
    _check(totals, report, data)
    totals["val"].sha256 = _join_validation(work, facts)
    shards = {"train": [_entry(each) for each in facts], "val": [_val_entry(totals["val"])]}
    dtype = token_dtype(trained.vocab_size)
    made = {side: shards_of(work, side, manifest={"shards": shards}) for side in SIDES}
    losses = sampled_references(made, dtype=dtype, vocab_size=trained.vocab_size)
    manifest = {
        "format_version": STREAM_FORMAT,
        "fingerprint": fingerprint,
        "dtype": dtype,
        "shards": shards,
        "inputs": {file.name: file.bytes for file in files},
    }
    totals["train"].sha256 = hashlib.sha256("".join(e["sha256"] for e in shards["train"]).encode()).hexdigest()
    meta: dict[str, Any] = {
        "format_version": STREAM_FORMAT,
        "name": data.name,
        "kind": data.kind,
        "data_settings": content_settings(data),
        "manifest_sha256": write_manifest(work, manifest),
        "split": {"kind": "lottery", "rule": STREAM_RULE, "seed": data.split_seed, "share": share},
        "splits": {side: dataclasses.asdict(total) for side, total in totals.items()},
        "shards": {side: len(entries) for side, entries in shards.items()},
        "rows_left_out": report.skipped,
        **_without_near_duplicates(data, facts),
        "bytes_per_token": {side: total.bytes / total.tokens for side, total in totals.items()},
        "dtype": dtype,
        "append_eos": True,
        "tokenizer": tokenizer_facts(trained),
        "reference_losses": losses,
    }
    write_meta(work, meta, settings=settings, fingerprint=fingerprint)


def clean(work: Path) -> None:
    """Remove what only the making of a folder needs; it is complete."""
    shutil.rmtree(work / FOLDER, ignore_errors=True)
    for pattern in ("chunk-*.json", "held-*"):
        for path in work.glob(pattern):
            path.unlink()


def _without_near_duplicates(data: StreamSettings, facts: list[ChunkFacts]) -> dict[str, int]:
    if getattr(data, "near_duplicates", "keep") == "keep":
        return {}
    removed = sum(each.near_duplicates for each in facts)
    logger.info("data %s: %s near-duplicate document(s) left out", data.name, f"{removed:,}")
    return {"near_duplicates_left_out": removed}


def _total(facts: list[ChunkFacts], side: str) -> SideFacts:
    found = [each.sides[side] for each in facts]
    return SideFacts(
        documents=sum(each.documents for each in found),
        bytes=sum(each.bytes for each in found),
        tokens=sum(each.tokens for each in found),
    )


def _entry(facts: ChunkFacts) -> dict[str, Any]:
    name = shard_path(Path(), "train", facts.number).name
    return {
        "file": name,
        **dataclasses.asdict(facts.sides["train"]),
        "source": facts.label,
        "documents_sha256": facts.documents_sha256,
    }


def _val_entry(total: SideFacts) -> dict[str, Any]:
    return {"file": VALIDATION, **dataclasses.asdict(total)}


def _join_validation(work: Path, facts: list[ChunkFacts]) -> str:
    """Write the held-out documents of all chunks as one shard with its index; its SHA-256 (hex)."""
    digest, before = hashlib.sha256(), 0
    shard = work / VALIDATION
    with shard.open("wb") as ids, index_path(shard).open("wb") as index:
        for each in facts:
            part = shard_path(work, "val", each.number)
            with part.open("rb") as source:
                while block := source.read(_BLOCK):
                    digest.update(block)
                    ids.write(block)
            ends = np.fromfile(index_path(part), dtype="<u8")
            index.write((ends + np.uint64(before)).astype("<u8").tobytes())
            before += each.sides["val"].tokens
        for file in (ids, index):
            file.flush()
            os.fsync(file.fileno())
    return digest.hexdigest()


def sampled_references(shards: Mapping[str, Sequence[Shard]], *, dtype: str, vocab_size: int) -> dict[str, Any]:
    """Losses of a unigram and a bigram model, both fitted and scored on samples of at most `REFERENCE_TOKENS`.

    Args:
        shards: Of `train` and of `val`.
        dtype, vocab_size: Of their ids.
    """
    train, val = (sample_tokens(shards[side], dtype=dtype, at_most=REFERENCE_TOKENS[side]) for side in SIDES)
    losses = reference_losses(train, val, vocab_size=vocab_size)
    logger.info(
        "data: reference losses on val: unigram %.4f, bigram %.4f nats per token (fitted on %s tokens)",
        losses.unigram,
        losses.bigram,
        f"{len(train):,}",
    )
    return {
        "unit": "nats per validation token",
        **dataclasses.asdict(losses),
        "train_tokens": len(train),
        "val_tokens": len(val),
    }


def _joined_reports(facts: list[ChunkFacts], data: StreamSettings) -> ReadReport:
    """What the readers noticed, added up and logged."""
    joined = ReadReport()
    spelled = Counter[str]()
    for each in facts:
        joined.skipped += each.report.skipped
        joined.first_skipped = joined.first_skipped or each.report.first_skipped
        joined.replaced += each.report.replaced
        joined.doubts += each.report.doubts
        spelled.update(each.spelled)
    if joined.skipped:
        logger.warning(
            "data %s: %s row(s) left out; the first: %s", data.name, f"{joined.skipped:,}", joined.first_skipped
        )
    if joined.replaced:
        logger.warning("data %s: %s damaged place(s) replaced by U+FFFD", data.name, f"{joined.replaced:,}")
    for doubt in joined.doubts[:3]:
        logger.warning("data %s: %s. If that is wrong, set data.encodings", data.name, doubt)
    if spelled:
        logger.warning(
            "data %s: the text spells special tokens of the tokenizer, which stay ordinary text: %s",
            data.name,
            ", ".join(f"{name} ({count:,} times)" for name, count in spelled.most_common(5)),
        )
    return joined


def _check(totals: dict[str, SideFacts], report: ReadReport, data: StreamSettings) -> None:
    if not any(total.documents for total in totals.values()):
        raise DataError(
            f"no row in {data.path} has text"
            + (f"; the first of {report.skipped:,}: {report.first_skipped}" if report.skipped else ""),
            needed="rows with text",
            fix="data.text_key=KEY",
        )
    for side, total in totals.items():
        if total.tokens < 2:
            raise DataError(
                f"the {side} split has {total.tokens} tokens: {sum(t.documents for t in totals.values()):,} documents "
                f"of very different sizes, of which {total.documents:,} are in it",
                needed="at least 2 tokens in each split",
                fix="another data.split_seed, a larger data.val_fraction or data.val_bytes, or more documents",
            )
