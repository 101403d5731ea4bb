"""Groups of near-identical documents, so that no copy of a training text is held out for validation. Nothing is removed
here. Documents that merely share a menu are not kept together: a group of several documents that holds much of the
corpus would leave too little for one side of the split, so its documents are compared again by the lines that at most
half of them have. Copies stay together always.

Two documents belong together when the Jaccard similarity of their line sets (stripped, blank lines ignored) is about
0.5 or more. It is estimated by MinHash (Broder 1997): for a random hash of lines, the smallest value of two sets is the
same with probability |A and B| / |A or B|, so the share of equal minima over `HASHES` hashes estimates it. Pairs worth
comparing come from banding (Leskovec, Rajaraman, Ullman, "Mining of Massive Datasets", 3.4): `HASHES / ROWS` bands of
`ROWS` minima; at similarity 0.5 a pair agrees in at least one band with probability 1 - (1 - 0.5**3)**42 = 0.996.
"""

from __future__ import annotations

import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from litgpt_core.data.order import Words, mix64

HASHES = 126
ROWS = 3
THRESHOLD = 0.5
NEIGHBOURS = 32
"""Documents after it in its bucket that each one is compared with, per band: all pairs of up to 33 documents."""

_LINES_AT_ONCE = 1 << 16
MANY = 5
"""Documents from which a large group is compared again."""


@dataclass(kw_only=True)
class Grouping:
    """A group for every document."""

    numbers: list[int]
    """Per document; equal numbers stay together."""
    common_lines: frozenset[bytes] = field(default_factory=frozenset)
    """Lines that were ignored because most documents of a large group share them."""
    divided_documents: int = 0
    """Documents of groups that were divided for this reason."""

    def common_share(self, texts: Iterable[str]) -> float:
        """Share of the bytes of `texts` that are in such lines."""
        listed = list(texts)
        total = sum(len(text.encode("utf-8")) for text in listed)
        return sum(line_bytes(text, self.common_lines) for text in listed) / max(total, 1)


def group_documents(texts: Sequence[str], *, enabled: bool, largest_share: float) -> Grouping:
    """Groups of near-duplicates.

    Args:
        texts: The documents, in an order that does not depend on how they were found.
        enabled: Whether near-duplicates are grouped; otherwise each document is a group.
        largest_share: A group of `MANY` documents with more than this share of the bytes is compared again.
    """
    if not enabled:
        return Grouping(numbers=list(range(len(texts))))
    grouping = Grouping(numbers=near_duplicate_groups(texts).tolist())
    sizes = [len(text.encode("utf-8")) for text in texts]
    waiting = list(_members(grouping.numbers, range(len(texts))).values())
    while waiting:
        members = waiting.pop()
        if len(members) < MANY or sum(sizes[i] for i in members) <= largest_share * sum(sizes):
            continue
        numbers, common = own_lines_groups([texts[i] for i in members])
        parts = _members(numbers.tolist(), members)
        if len(parts) == 1:
            continue
        for part in parts.values():
            for i in part:
                grouping.numbers[i] = part[0]
        waiting += parts.values()
        grouping.common_lines |= common
        grouping.divided_documents += len(members)
    return grouping


def _members(numbers: Sequence[int], documents: Sequence[int]) -> dict[int, list[int]]:
    found = defaultdict[int, list[int]](list)
    for number, document in zip(numbers, documents, strict=True):
        found[number].append(document)
    return found


def near_duplicate_groups(texts: Sequence[str]) -> npt.NDArray[np.int64]:
    """A group number per text, shape (len(texts),): the lowest index of its group.

    Groups are transitive: a-b and b-c put a and c together. The result depends on the texts and their order only;
    callers that want independence of the order sort first.
    """
    if not texts:
        return np.zeros(0, dtype=np.int64)
    signatures = minhash(texts)
    parents = list(range(len(texts)))
    for first, second in _similar_pairs(signatures).tolist():
        low, high = sorted((_root(parents, first), _root(parents, second)))
        parents[high] = low
    return np.array([_root(parents, i) for i in range(len(texts))], dtype=np.int64)


def own_lines_groups(texts: Sequence[str]) -> tuple[npt.NDArray[np.int64], frozenset[bytes]]:
    """(groups by the lines that at most half of the texts hold, the other lines).

    Saved pages with one menu, or letters with one head and foot, are similar only by the lines that most of them share.
    Texts without a line of their own stay together.
    """
    lines_of = [_distinct_lines(text) for text in texts]
    counts = Counter(line for lines in lines_of for line in lines)
    common = frozenset(line for line, count in counts.items() if 2 * count > len(texts))
    own = [b"\n".join(sorted(lines - common)).decode("utf-8") for lines in lines_of]
    return near_duplicate_groups(own), common


def line_bytes(text: str, among: frozenset[bytes]) -> int:
    """UTF-8 bytes of a text's lines (stripped) that are in `among`."""
    return sum(len(line) for line in map(bytes.strip, text.encode("utf-8").split(b"\n")) if line in among)


def _distinct_lines(text: str) -> set[bytes]:
    return {line for line in map(bytes.strip, text.encode("utf-8").split(b"\n")) if line}


def minhash(texts: Sequence[str]) -> Words:
    """Signatures, shape (len(texts), HASHES): per text the smallest value of each hash over its lines."""
    lines, lengths = _line_hashes(texts)
    keys = mix64(np.arange(1, HASHES + 1, dtype=np.uint64))
    signatures = np.full((len(texts), HASHES), np.iinfo(np.uint64).max, dtype=np.uint64)
    ends = np.cumsum(lengths)
    first = 0
    while first < len(texts):  # whole texts, about _LINES_AT_ONCE lines: the table of hashes stays in the cache
        begin = int(ends[first] - lengths[first])
        last = max(first + 1, int(np.searchsorted(ends, begin + _LINES_AT_ONCE, side="right")))
        segments = (ends[first:last] - lengths[first:last] - begin).astype(np.int64)
        chunk = lines[begin : int(ends[last - 1])]
        for column, key in enumerate(keys):
            signatures[first:last, column] = np.minimum.reduceat((chunk ^ key) * _odd(key), segments)
        first = last
    return signatures


def _odd(key: np.uint64) -> np.uint64:
    return np.uint64(int(key) | 1)


def _line_hashes(texts: Sequence[str]) -> tuple[Words, npt.NDArray[np.int64]]:
    """Distinct lines of all texts as well-mixed words, and how many each text has (at least one, if blank)."""
    crc = zlib.crc32
    parts, lengths = [], []
    for text in texts:
        distinct = {crc(line) for line in _distinct_lines(text)} or {0}
        parts.append(np.fromiter(distinct, dtype=np.uint64, count=len(distinct)))
        lengths.append(len(distinct))
    return mix64(np.concatenate(parts) + np.uint64(1)), np.array(lengths, dtype=np.int64)


def _similar_pairs(signatures: Words) -> npt.NDArray[np.int64]:
    """Pairs (i, j), i < j, shape (P, 2), whose signatures agree in at least THRESHOLD of the hashes."""
    count = len(signatures)
    found = [np.zeros(0, dtype=np.int64)]
    for band in range(HASHES // ROWS):
        columns = signatures[:, band * ROWS : (band + 1) * ROWS]
        buckets = mix64(mix64(mix64(columns[:, 0]) ^ columns[:, 1]) ^ columns[:, 2])
        order = np.argsort(buckets, kind="stable").astype(np.int64)
        ordered = buckets[order]
        for distance in range(1, min(NEIGHBOURS, count - 1) + 1):
            same = np.flatnonzero(ordered[distance:] == ordered[:-distance])
            if not same.size:
                break
            found.append(order[same] * count + order[same + distance])  # stable sort: the lower index comes first
    pairs = np.stack(np.divmod(np.unique(np.concatenate(found)), count), axis=1)
    agree = np.zeros(len(pairs), dtype=np.float64)
    for begin in range(0, len(pairs), _LINES_AT_ONCE):
        part = pairs[begin : begin + _LINES_AT_ONCE]
        agree[begin : begin + len(part)] = (signatures[part[:, 0]] == signatures[part[:, 1]]).mean(axis=1)
    return np.asarray(pairs[agree >= THRESHOLD], dtype=np.int64)


def _root(parents: list[int], i: int) -> int:
    while parents[i] != i:
        parents[i] = parents[parents[i]]
        i = parents[i]
    return i
