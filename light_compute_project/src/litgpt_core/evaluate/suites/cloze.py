"""Cloze: the last word of a held-out passage, one that the passage holds before, against words that it does not hold.

After the idea of LAMBADA (Paperno et al. 2016): the word follows from the passage rather than from the few words just
before it. Wrong words are about as frequent in the held-out text as the right one. Words are identifiers or English,
whatever the text holds.
"""

from __future__ import annotations

import random
import re

from litgpt_core.data.document import Document
from litgpt_core.evaluate.items import Item
from litgpt_core.evaluate.suites.changes import last_word
from litgpt_core.evaluate.suites.material import Material
from litgpt_core.evaluate.suites.word_pool import WORD, WordPool

PASSAGE = 450
"""Characters of context."""
CHOICES = 4
ITEMS = 1000
PER_DOCUMENT = 50


def cloze(material: Material, rng: random.Random) -> list[Item]:
    """Items from all documents."""
    found: list[Item] = []
    for document in material.divided:
        words = list(WORD.finditer(document.text))
        made = 0
        for match in rng.sample(words, len(words)):
            if made == PER_DOCUMENT:
                break
            if (item := _item(document, match, material.words, rng)) is not None:
                found.append(item)
                made += 1
    return rng.sample(found, min(len(found), ITEMS))


def _item(document: Document, match: re.Match[str], pool: WordPool, rng: random.Random) -> Item | None:
    passage, word = document.text[max(0, match.start() - PASSAGE) : match.start()], match[0]
    before = [found[0] for found in WORD.finditer(passage)]
    if word not in pool.rank or word not in before[:-8] or word in before[-3:]:
        return None
    others = pool.others(word, document, rng)
    if len(others) < CHOICES - 1:
        return None
    kind = "identifier" if "_" in word or not word.islower() else "word"
    return last_word(kind, document, passage, (word, *others), keep=CHOICES)
