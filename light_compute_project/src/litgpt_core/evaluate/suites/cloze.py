"""Cloze: the last word of a held-out passage, one in which it occurred before, against other words of the passage.

After the idea of LAMBADA (Paperno et al. 2016): the word follows from the passage rather than from the words just
before it, so a bigram model stays near chance. Words are identifiers or English, whatever the held-out text holds.
"""

from __future__ import annotations

import random
import re

from litgpt_core.data.document import Document
from litgpt_core.evaluate.items import Item
from litgpt_core.evaluate.suites.material import Material

PASSAGE = 450
"""Characters of context."""
CHOICES = 4
OTHERS = 12
"""Wrong words that are offered; the first that have as many tokens are taken."""
ITEMS = 1000
PER_DOCUMENT = 50
_WORD = re.compile(r"(?<![A-Za-z_])[A-Za-z_]{4,}(?![A-Za-z_])")


def cloze(material: Material, rng: random.Random) -> list[Item]:
    """Items from all documents."""
    found: list[Item] = []
    for document in material.divided:
        words = list(_WORD.finditer(document.text))
        made = 0
        for match in rng.sample(words, len(words)):
            if made == PER_DOCUMENT:
                break
            if (item := _item(document, match, rng)) is not None:
                found.append(item)
                made += 1
    return rng.sample(found, min(len(found), ITEMS))


def _item(document: Document, match: re.Match[str], rng: random.Random) -> Item | None:
    start = max(0, match.start() - PASSAGE)
    passage, word = document.text[start : match.start()], match[0]
    before = [found[0] for found in _WORD.finditer(passage)]
    if word not in before[:-8] or word in before[-3:]:
        return None
    others = sorted({other for other in before if other != word and abs(len(other) - len(word)) <= 2})
    if len(others) < CHOICES - 1:
        return None
    choices = (word, *rng.sample(others, min(len(others), OTHERS)))
    kept = passage.rstrip(" ")
    blank = passage[len(kept) :]  # the space before a word belongs to the word's token
    return Item(
        kind="identifier" if "_" in word or not word.islower() else "word",
        cluster=document.name,
        context=kept,
        choices=tuple(blank[-1:] + choice for choice in choices),
        keep=CHOICES,
    )
