"""Copying from the context: what follows a token that stood before, on random tokens, words and names.

    repeat    a b c d e a b c -> d       random ids, repeated at random periods: an induction head's own task
    copy      a list of words, and the same list again
    lookup    key = value lines, and one key again

Chance is exactly one in four: the wrong choices are other tokens or words of the same context.
"""

from __future__ import annotations

import random

from litgpt_core.evaluate.items import Item
from litgpt_core.evaluate.suites.english_grammar import PEOPLE, THINGS
from litgpt_core.evaluate.suites.material import Material

ITEMS_OF_A_KIND = 150
CHOICES = 4
PERIODS = (6, 8, 10, 12, 16, 20)

_WORDS = tuple(sorted({*PEOPLE, *THINGS}))
_NAMES = ("alpha", "beta", "gamma", "delta", "first", "second", "start", "end", "left", "right", "name", "size")


def induction(material: Material, rng: random.Random) -> list[Item]:
    """Items of all three kinds."""
    return [
        *(_repeat(material, rng, number) for number in range(ITEMS_OF_A_KIND)),
        *(_copy(rng, number) for number in range(ITEMS_OF_A_KIND)),
        *(_lookup(rng, number) for number in range(ITEMS_OF_A_KIND)),
    ]


def _repeat(material: Material, rng: random.Random, number: int) -> Item:
    """Random ids twice; the second time up to a place from the middle on."""
    period = PERIODS[number % len(PERIODS)]
    special = material.tokenizer.special_ids()
    ordinary = [token for token in range(material.tokenizer.vocab_size) if token not in special]
    ids = rng.sample(ordinary, min(period, len(ordinary)))
    place = rng.randrange(len(ids) // 2, len(ids))
    others = rng.sample([token for token in ids if token != ids[place]], CHOICES - 1)
    return Item(
        kind="repeat",
        cluster=f"repeat {number}",
        context=(*ids, *ids[:place]),
        choices=((ids[place],), *((token,) for token in others)),
    )


def _copy(rng: random.Random, number: int) -> Item:
    words = rng.sample(_WORDS, 8)
    place = rng.randrange(3, 8)
    others = [word for word in rng.sample(words, len(words)) if word != words[place]]
    context = f"{' '.join(words)}\n{' '.join(words[:place])}"
    return Item(
        kind="copy",
        cluster=f"copy {number}",
        context=context,
        choices=tuple(f" {w}" for w in (words[place], *others)),
        keep=CHOICES,
    )


def _lookup(rng: random.Random, number: int) -> Item:
    keys, values = rng.sample(_NAMES, CHOICES), rng.sample(range(10, 100), CHOICES)
    place = rng.randrange(CHOICES)
    lines = "".join(f"{key} = {value}\n" for key, value in zip(keys, values, strict=True))
    answers = [values[place], *(value for value in values if value != values[place])]
    context = f"{lines}assert {keys[place]} =="
    return Item(
        kind="lookup", cluster=f"lookup {number}", context=context, choices=tuple(f" {value}" for value in answers)
    )
