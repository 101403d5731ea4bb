"""Entity tracking: where a thing is after some moves, and what a variable holds after some assignments.

    boxes      The key is in the box. The ring is in the bag. The man moves the key to the house. The key is in the ->
    variables  x = 3; y = 8; x = y; assert x == -> 8

Chance is exactly one in three, respectively four: all choices were mentioned, and each is as often the last mentioned.
After Kim and Schuster (2023), "Entity tracking in language models"; frames and words are this project's own.
"""

from __future__ import annotations

import random

from litgpt_core.evaluate.items import Item
from litgpt_core.evaluate.suites.material import Material

ITEMS_OF_A_KIND = 200

_PEOPLE = ("The man", "The woman", "The boy", "The girl", "The king", "The queen")
_THINGS = ("letter", "book", "picture", "stone", "key", "ring")
_PLACES = ("box", "bag", "house", "garden", "window", "drawer")
_LETTERS = ("a", "b", "c", "x", "y", "z", "n", "m")


def entities(material: Material, rng: random.Random) -> list[Item]:
    """Items of both kinds."""
    return [
        *(_boxes(rng, number) for number in range(ITEMS_OF_A_KIND)),
        *(_variables(rng, number) for number in range(ITEMS_OF_A_KIND)),
    ]


def _boxes(rng: random.Random, number: int) -> Item:
    things, places = rng.sample(_THINGS, 3), rng.sample(_PLACES, 3)
    where = dict(zip(things, places, strict=True))
    sentences = [f"The {thing} is in the {place}." for thing, place in where.items()]
    for _ in range(rng.randint(1, 3)):
        thing = rng.choice(things)
        where[thing] = rng.choice([place for place in places if place != where[thing]])
        sentences.append(f"{rng.choice(_PEOPLE)} moves the {thing} to the {where[thing]}.")
    wanted = rng.choice(things)
    context = f"{' '.join(sentences)} The {wanted} is in the"
    choices = (where[wanted], *(place for place in places if place != where[wanted]))
    return Item(
        kind="boxes", cluster=f"boxes {number}", context=context, choices=tuple(f" {choice}" for choice in choices)
    )


def _variables(rng: random.Random, number: int) -> Item:
    names, numbers = rng.sample(_LETTERS, 3), rng.sample(range(1, 10), 4)
    values = dict(zip(names, numbers, strict=False))
    lines = [f"{name} = {value}" for name, value in values.items()]
    changed, source = rng.sample(names, 2)
    values[changed] = values[source]
    lines.append(f"{changed} = {source}")
    other = names[3 - names.index(changed) - names.index(source)]
    values[other] = numbers[3]
    lines.insert(rng.randint(3, 4), f"{other} = {numbers[3]}")
    wanted = rng.choice(names)
    choices = (values[wanted], *(value for value in numbers if value != values[wanted]))
    context = "\n".join(lines) + f"\nassert {wanted} =="
    return Item(
        kind="variables", cluster=f"variables {number}", context=context, choices=tuple(f" {c}" for c in choices)
    )
