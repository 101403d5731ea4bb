"""A bounded, seeded sample of documents to train a vocabulary on.

Reads once and holds no more than the budget in memory.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Iterable, Iterator

from litgpt_core.core.errors import TokenizerError
from litgpt_core.tokenizers.base import to_utf8

_CHUNK = 1 << 16  # characters; longer documents are cut, so that a huge file is sampled too, not kept or dropped as one


def sample_documents(documents: Iterable[str], *, max_bytes: int, seed: int) -> list[str]:
    """Documents (or chunks of long ones), at most `max_bytes` of UTF-8 together, in their original order.

    Every chunk gets a key from a generator seeded with `seed`; the chunks with the smallest keys stay. Equal
    documents, order and seed give an equal sample. Raises TokenizerError when there is no text at all.
    """
    generator = random.Random(seed)
    kept: list[tuple[float, int, int, str]] = []  # a heap with the greatest key on top: (-key, index, bytes, text)
    total = 0
    for index, chunk in enumerate(_chunks(documents, size=max(1, min(_CHUNK, max_bytes // 4)))):
        length = len(to_utf8(chunk))
        heapq.heappush(kept, (-generator.random(), index, length, chunk))
        total += length
        while total > max_bytes and len(kept) > 1:
            total -= heapq.heappop(kept)[2]
    if not kept:
        raise TokenizerError("The training documents hold no text.", needed="at least one document that is not empty")
    return [chunk for _, _, _, chunk in sorted(kept, key=lambda entry: entry[1])]


def _chunks(documents: Iterable[str], *, size: int) -> Iterator[str]:
    for document in documents:
        start = 0
        while len(document) - start > size:
            newline = document.rfind("\n", start, start + size)
            stop = newline + 1 if newline >= start else start + size
            yield document[start:stop]
            start = stop
        if start < len(document):
            yield document[start:]
