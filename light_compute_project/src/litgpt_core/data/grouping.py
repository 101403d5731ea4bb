"""Which documents stay on one side of the split: near-duplicates do, documents that merely share a menu do not.

Groups are those of `duplicates`. A group of several documents that holds much of the corpus would leave too little for
one side; its documents are compared again by the lines that at most half of them have. Copies stay together always.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from litgpt_core.data.duplicates import line_bytes, near_duplicate_groups, own_lines_groups

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
