"""Induction in held-out text: what followed the last time, when the same two tokens come again.

    ... self.weights ... self.  ->  weights     against a word about as frequent that the file does not have

    near    the last time is at most `NEAR` characters before
    far     it is further away

This is what an induction head does (Olsson et al. 2022), on text as it is: on random tokens, which the heads view of
`lcp analyze` uses, a model that was trained for minutes learns nothing.
"""

from __future__ import annotations

import random
import re

from litgpt_core.data.document import Document
from litgpt_core.evaluate.items import Item
from litgpt_core.evaluate.suites.changes import last_word
from litgpt_core.evaluate.suites.material import Material
from litgpt_core.evaluate.suites.word_pool import WordPool

PASSAGE = 450
"""Characters of context."""
NEAR = 150
ITEMS_OF_A_KIND = 400
PER_DOCUMENT = 20
"""Of one kind."""
TRIED = 4000
"""Places of a document at most."""
_TOKEN = re.compile(r"[A-Za-z_]+|\d+|[^\sA-Za-z_\d]")


def induction(material: Material, rng: random.Random) -> list[Item]:
    """Items of both kinds."""
    found: dict[str, list[Item]] = {"near": [], "far": []}
    for document in material.divided:
        made = dict.fromkeys(found, 0)
        for kind, start, word in _repeated(document, material.words, rng):
            others = material.words.others(word, document, rng) if made[kind] < PER_DOCUMENT else []
            if others:
                passage = document.text[max(0, start - PASSAGE) : start]
                found[kind].append(last_word(kind, document, passage, (word, *others), keep=2))
                made[kind] += 1
    return [item for items in found.values() for item in rng.sample(items, min(len(items), ITEMS_OF_A_KIND))]


def _repeated(document: Document, pool: WordPool, rng: random.Random) -> list[tuple[str, int, str]]:
    """(kind, place, word) where the two tokens before a word were followed by it the last time, in random order."""
    last: dict[tuple[str, str], tuple[int, str]] = {}
    found = []
    tokens = list(_TOKEN.finditer(document.text))
    for number in range(2, len(tokens)):
        word, start = tokens[number][0], tokens[number].start()
        key = (tokens[number - 2][0], tokens[number - 1][0])
        before, followed = last.get(key, (-PASSAGE, ""))
        if followed == word and word in pool.rank and start - before < PASSAGE - 20:
            found.append(("near" if start - before <= NEAR else "far", start, word))
        last[key] = (start, word)
    return rng.sample(found, min(len(found), TRIED))
