"""What is in a corpus or a prepared folder: documents, lengths, scripts, duplicates, a sample. Without torch."""

from __future__ import annotations

import hashlib
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from litgpt_core import tokenizers
from litgpt_core.core.errors import DataError
from litgpt_core.data.files import bare_name
from litgpt_core.data.prepared import PreparedData
from litgpt_core.data.settings import StreamSettings, TextSettings
from litgpt_core.data.stream.chunks import Chunk
from litgpt_core.data.stream.inputs import list_inputs
from litgpt_core.data.stream.lottery import lottery_number
from litgpt_core.data.stream.readers import Reader, ReadReport
from litgpt_core.data.stream.reading import reader_of
from litgpt_core.data.stream.token_row import TokenRow
from litgpt_core.data.stream_settings import RowsKind, RowsSettings

_KINDS: dict[str, RowsKind] = {".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet", ".arrow": "arrow"}
_HASHED = 5_000_000
"""Documents whose hashes are kept: 100 MB or so."""
_LETTERS_OF = 2_000
"""Characters of each document whose script is looked up."""
_SHOWN = 300


@dataclass
class CorpusFindings:
    """What was found in the documents that were looked at."""

    documents: int = 0
    bytes: int = 0
    lengths: list[int] = field(default_factory=list)
    """UTF-8 bytes of each document."""
    scripts: Counter[str] = field(default_factory=Counter)
    """Script -> letters."""
    copies: int = 0
    """Documents that equal an earlier one."""
    near: int = 0
    """Others that share their smallest line with an earlier one, as near-duplicates do."""
    sample: str = ""
    report: ReadReport = field(default_factory=ReadReport)
    complete: bool = True
    """Whether everything was read."""

    def lines(self) -> dict[str, str]:
        """For the terminal."""
        letters = max(self.scripts.total(), 1)
        shown = [f"{name} {100 * count / letters:.3g} %" for name, count in self.scripts.most_common(5)]
        rows = {
            "looked at": "everything" if self.complete else "the beginnings of chunks spread over the corpus",
            "documents": f"{self.documents:,}",
            "text": f"{self.bytes:,} bytes",
            "lengths": quantiles(self.lengths, unit="bytes"),
            "scripts": ", ".join(shown) or "no letters",
            "copies": f"{100 * self.copies / max(self.documents, 1):.3g} % of the documents equal an earlier one",
            "alike": f"{100 * self.near / max(self.documents, 1):.3g} % share their key line with an earlier one",
        }
        if self.report.skipped:
            rows["left out"] = f"{self.report.skipped:,} rows; the first: {self.report.first_skipped}"
        return {**rows, "sample": " ".join(self.sample[:_SHOWN].split())}


def quantiles(lengths: list[int], *, unit: str) -> str:
    """Smallest, median, mean, 99th percentile and largest."""
    if not lengths:
        return "none"
    values = np.array(lengths, dtype=np.int64)
    middle, high = (int(value) for value in np.percentile(values, [50, 99]))
    return (
        f"from {values.min():,} to {values.max():,} {unit}; median {middle:,}, mean {values.mean():,.0f}, "
        f"99 % at most {high:,}"
    )


def corpus_settings(path: str, *, text_key: str, pattern: str) -> StreamSettings:
    """Settings that read a path, by the endings of its files.

    Raises:
        DataError: Nothing matches.
    """
    files = list_inputs(path, pattern or "**/*", report=False)
    endings = Counter(Path(bare_name(file.name)).suffix for file in files)
    kind = _KINDS.get(endings.most_common(1)[0][0])
    if kind is None:
        return TextSettings(path=path, glob=pattern or "**/*", text_key=text_key)
    chosen = pattern or f"**/*{endings.most_common(1)[0][0]}"
    return RowsSettings(kind=kind, path=path, glob=chosen, text_key=text_key or "text")


def inspect_corpus(settings: StreamSettings, *, max_bytes: int) -> CorpusFindings:
    """Look at a corpus in constant memory.

    Args:
        settings: What to read.
        max_bytes: About so much text at most, from chunks spread over the corpus.
    """
    reader = reader_of(settings)
    chunks = reader.chunks(list_inputs(settings.path, settings.glob, report=False))
    found = CorpusFindings()
    seen, keys = set[bytes](), set[float]()
    for text in _spread(reader, chunks, found, max_bytes=max_bytes):
        raw = text.encode("utf-8")
        found.documents += 1
        found.bytes += len(raw)
        found.lengths.append(len(raw))
        found.scripts.update(_scripts(text))
        digest, key = hashlib.sha256(raw).digest()[:12], lottery_number(raw, seed=0)
        if digest in seen:
            found.copies += 1
        elif key in keys:
            found.near += 1
        if len(seen) < _HASHED:
            seen.add(digest)
            keys.add(key)
        found.sample = found.sample or text
    if not found.documents:
        raise DataError(f"{settings.path} holds no text", needed="documents", fix="--text_key KEY, or --glob PATTERN")
    return found


def inspect_prepared(prepared: PreparedData) -> dict[str, str]:
    """What a prepared folder holds, for the terminal."""
    meta = prepared.meta
    rows = {
        "name": f"{meta['name']} ({meta['kind']}), fingerprint {prepared.fingerprint[:12]}",
        "vocabulary": f"{prepared.vocab_size:,} ids ({meta['tokenizer']['kind']}), stored as {prepared.dtype}",
    }
    for side in ("train", "val"):
        facts = meta["splits"][side]
        more = "".join(f", {facts[key]:,} {key}" for key in ("documents", "bytes") if facts.get(key))
        rows[side] = f"{facts['tokens']:,} tokens{more}"
    if meta["kind"] == "chat":
        return rows
    shards = {side: prepared.shards(side) for side in ("train", "val")}
    rows["shards"] = ", ".join(f"{len(listed):,} {side}" for side, listed in shards.items())
    rows["bytes per token"] = f"{prepared.val_bytes / prepared.val_tokens:.3f} on the validation split"
    row = TokenRow(shards["val"], dtype=prepared.dtype)
    ids = row.span(0, 1 << 22)
    ends = np.flatnonzero(ids == prepared.eos_id)
    rows["lengths"] = quantiles(np.diff(ends, prepend=-1).tolist(), unit="tokens") + " (validation)"
    losses = meta.get("reference_losses", {})
    rows["to beat"] = ", ".join(f"{name} {losses[name]:.4f}" for name in ("unigram", "bigram") if name in losses)
    text = tokenizers.load(prepared.tokenizer_dir).decode(ids[:_SHOWN].tolist())
    return {**rows, "sample": " ".join(text[:_SHOWN].split())}


def _spread(reader: Reader, chunks: list[Chunk], found: CorpusFindings, *, max_bytes: int) -> Iterator[str]:
    total = sum(chunk.bytes for chunk in chunks)
    count = min(len(chunks), 64) if total > max_bytes else len(chunks)
    for i in range(count):
        left = max_bytes // count if total > max_bytes else 1 << 62
        for text in reader.read(chunks[i * len(chunks) // count], found.report):
            yield text
            left -= len(text.encode("utf-8"))
            if left <= 0:
                found.complete = False
                break
    found.complete = found.complete and count == len(chunks)


def _scripts(text: str) -> Counter[str]:
    counts = Counter(character for character in text[:_LETTERS_OF] if character.isalpha())
    found = Counter[str]()
    for character, count in counts.items():
        name = "LATIN" if character.isascii() else unicodedata.name(character, "OTHER").partition(" ")[0]
        found[name.partition("-")[0].capitalize()] += count
    return found
