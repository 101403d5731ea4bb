"""Split rule 2: which side a document is on, decided by itself alone, so that a corpus of any size is split while it is
read.

The smallest hash of a document's lines (stripped, blank ones ignored) takes part in a seeded lottery. Two documents
whose sets of lines have the Jaccard similarity J share their smallest line with probability J (MinHash, Broder 1997),
and are then on one side; exact copies always are. Rule 1, for small corpora, groups near-duplicates (`split`).
"""

from __future__ import annotations

import hashlib
import zlib

STREAM_RULE = 3
"""`split.rule` in meta.json; 1 and 2 are those of `split`."""


def lottery_number(raw: bytes, *, seed: int) -> float:
    """In [0, 1): a document is held out if it is below the share of validation.

    Args:
        raw: UTF-8 bytes of the document.
        seed: `data.split_seed`.
    """
    smallest = min((zlib.crc32(line) for line in map(bytes.strip, raw.split(b"\n")) if line), default=0)
    digest = hashlib.sha256(f"{seed}:{smallest}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def held_out_share(total_bytes: int, *, val_fraction: float, val_bytes: int) -> float:
    """The share of documents to hold out, so that validation has at most about `val_bytes` of `total_bytes`."""
    return min(val_fraction, val_bytes / max(total_bytes, 1))
