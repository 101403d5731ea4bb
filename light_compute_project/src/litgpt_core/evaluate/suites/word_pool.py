"""Words of held-out documents by how often they occur, so that a wrong word is about as frequent as the right one."""

from __future__ import annotations

import keyword
import random
import re
from collections import Counter, defaultdict
from collections.abc import Sequence

from litgpt_core.data.document import Document

WORD = re.compile(r"(?<![A-Za-z_])[A-Za-z_]{4,}(?![A-Za-z_])")
"""Identifiers and English words of four letters and more."""
NEIGHBOURS = 150
"""Ranks to each side that count as about as frequent."""
OFFERED = 24
"""Wrong words for one place; the first that have as many tokens are taken."""


class WordPool:
    """All words of some documents.

    Args:
        documents: Held-out text.
    """

    def __init__(self, documents: Sequence[Document]) -> None:
        counts: Counter[str] = Counter()
        self.where: dict[str, set[str]] = defaultdict(set)
        for document in documents:
            own = Counter(match[0] for match in WORD.finditer(document.text))
            counts.update(own)
            for word in own:
                self.where[word].add(document.name)
        self.order = sorted((word for word in counts if not keyword.iskeyword(word)), key=lambda w: (counts[w], w))
        self.rank = {word: rank for rank, word in enumerate(self.order)}

    def others(self, word: str, document: Document, rng: random.Random) -> list[str]:
        """Words about as frequent as `word`, one of the pool, that the document does not have."""
        rank = self.rank[word]
        near = self.order[max(0, rank - NEIGHBOURS) : rank + NEIGHBOURS]
        absent = [each for each in near if document.name not in self.where[each]]
        return rng.sample(absent, min(OFFERED, len(absent)))
