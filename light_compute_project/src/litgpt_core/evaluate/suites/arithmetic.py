"""Sums and differences in the form of Python sessions, after two solved examples; wrong answers have as many digits.

>>> 3 + 4
7
>>> 2 + 6
8
>>> 5 + 4
9        against three other numbers near it: chance is exactly one in four
"""

from __future__ import annotations

import random

from litgpt_core.evaluate.items import Item
from litgpt_core.evaluate.suites.material import Material

ITEMS_OF_A_KIND = 100
CHOICES = 4


def arithmetic(material: Material, rng: random.Random) -> list[Item]:
    """Sums and differences of one and of two digits."""
    kinds = [(f"{name}_{digits}", sign, digits) for digits in (1, 2) for name, sign in (("add", 1), ("subtract", -1))]
    return [
        _item(rng, kind=kind, sign=sign, digits=digits, number=number)
        for kind, sign, digits in kinds
        for number in range(ITEMS_OF_A_KIND)
    ]


def _item(rng: random.Random, *, kind: str, sign: int, digits: int, number: int) -> Item:
    shots = [_problem(rng, sign, digits) for _ in range(3)]
    lines = [f">>> {question}\n{answer}\n" for question, answer in shots[:2]]
    question, answer = shots[2]
    same = [other for other in range(max(0, answer - 9), answer + 10) if len(str(other)) == len(str(answer))]
    others = rng.sample([other for other in same if other != answer], CHOICES - 1)
    return Item(
        kind=kind,
        cluster=f"{kind} {number}",
        context="".join(lines) + f">>> {question}\n",
        choices=tuple(str(choice) for choice in (answer, *others)),
    )


def _problem(rng: random.Random, sign: int, digits: int) -> tuple[str, int]:
    low, high = (1, 9) if digits == 1 else (10, 99)
    a, b = rng.randint(low, high), rng.randint(low, high)
    if sign < 0:
        return f"{max(a, b)} - {min(a, b)}", abs(a - b)
    return f"{a} + {b}", a + b
