"""Documents to a file of token ids: raw little-endian integers without a header, ready to be memory-mapped."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from litgpt_core.data.document import Document
from litgpt_core.tokenizers.base import Tokenizer

_CHARACTERS_AT_ONCE = 4_000_000  # tokenized together; their ids are in memory as Python lists


@dataclass(frozen=True, kw_only=True)
class ShardFacts:
    """What was written, for meta.json."""

    documents: int
    bytes: int
    """UTF-8 bytes of the text."""
    tokens: int
    """Ids in the file, end-of-document ids included."""
    sha256: str
    """Of the file."""


def token_dtype(vocab_size: int) -> str:
    """uint16 while every id fits, else uint32."""
    return "uint16" if vocab_size <= 1 << 16 else "uint32"


def write_shard(path: Path, documents: Sequence[Document], *, tokenizer: Tokenizer, append_eos: bool) -> ShardFacts:
    """Tokenize documents in order into `path`; with `append_eos`, each is followed by the end-of-document id.

    A document that spells a special token does not get that token: it would end a text that goes on.
    """
    dtype = np.dtype(token_dtype(tokenizer.vocab_size)).newbyteorder("<")
    ending = [tokenizer.eos_id] if append_eos else []
    digest, tokens, text_bytes = hashlib.sha256(), 0, 0
    with path.open("wb") as file:
        for batch in _batches(documents):
            text_bytes += sum(len(text.encode("utf-8")) for text in batch)
            for ids in tokenizer.encode_plain_batch(batch):
                raw = np.fromiter(itertools.chain(ids, ending), dtype=dtype, count=len(ids) + len(ending)).tobytes()
                digest.update(raw)
                tokens += len(raw) // dtype.itemsize
                file.write(raw)
    return ShardFacts(documents=len(documents), bytes=text_bytes, tokens=tokens, sha256=digest.hexdigest())


def _batches(documents: Iterable[Document]) -> Iterator[list[str]]:
    batch: list[str] = []
    size = 0
    for document in documents:
        batch.append(document.text)
        size += len(document.text)
        if size >= _CHARACTERS_AT_ONCE:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
