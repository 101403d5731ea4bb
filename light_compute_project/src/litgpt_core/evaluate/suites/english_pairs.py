"""Minimal pairs of English from held-out text: a line of prose, and the same with one word wrong, or two exchanged.

    determiner     in [the file | file the] that     a determiner and the word behind it, exchanged
    auxiliary      must [be sorted | sorted be]      an auxiliary and the word behind it, exchanged
    genitive       the set [of nodes | nodes of] in  "of" and the word behind it, exchanged
    preposition    the nodes [of | in] a graph       of and in, to and for, with and by, from and on exchanged
    article        with [an | a] empty list          by the sound that follows
    demonstrative  [these | this] names are          by the number of the noun
    agreement      the values [are | is] sorted      by the number of the noun before
    verb           it [returns | return] a list; must [return | returns] a list

The right side is what somebody wrote. The first three have the same words on both sides, the others occur equally often
in both directions: preferring a word gains nothing. Prose is found in any text, comments and docstrings
included: words side by side, several of them no keywords, which code never has.
"""

from __future__ import annotations

import itertools
import keyword
import random
import re
from collections import defaultdict
from collections.abc import Callable, Iterator

from litgpt_core.data.document import Document
from litgpt_core.evaluate.items import Item
from litgpt_core.evaluate.suites.changes import Change, pair
from litgpt_core.evaluate.suites.material import Material

PER_DOCUMENT = 40
"""Items of one kind and direction from one document at most."""
ITEMS_OF_A_KIND = 400
SHORTEST_RUN = 5
"""Words of prose side by side at least."""

_RUN = re.compile(r"(?<![A-Za-z_.'`])[A-Za-z][a-z]*(?:,? [a-z]+)+(?![A-Za-z_(\[='`\"])")
_WORD = re.compile(r"[A-Za-z]+")
_DETERMINERS = {"the", "a", "an", "this", "these", "each", "every", "its"}
_AUXILIARIES = {"be", "is", "are", "was", "were", "has", "have", "been"}
_MODALS = {"can", "will", "must", "should", "may", "might", "could", "would", "cannot"}
_NOT_VERBS = {
    "not",
    "also",
    "only",
    "never",
    "always",
    "then",
    "still",
    "just",
    "now",
    "often",
    "even",
    "it",
    "the",
    "have",
}
_NOT_THIRD_PERSON = {
    "this",
    "its",
    "has",
    "was",
    "does",
    "always",
    "thus",
    "less",
    "plus",
    "across",
    "as",
    "is",
    "perhaps",
}
_FIRST = {
    **dict.fromkeys(_DETERMINERS, "determiner"),
    **dict.fromkeys(_AUXILIARIES | _MODALS, "auxiliary"),
    "of": "genitive",
}
"""Word: the kind of which exchanging it with the next word makes an item."""
_EXCHANGED = (("of", "in"), ("to", "for"), ("with", "by"), ("from", "on"))
_PARTNERS = {a: b for both in _EXCHANGED for a, b in (both, both[::-1])}
_NUMBERS = {"is": "are", "was": "were", "has": "have", "does": "do"}
_ENDING_IN_E = {"caches", "lies", "ties", "dies"}
_OF_NO_NUMBER = {
    "data",
    "rest",
    "following",
    "same",
    "other",
    "latter",
    "former",
    "number",
    "first",
    "last",
    "majority",
}

Word = tuple[str, int, int]
"""A word, and where it begins and ends in the document."""


def english_pairs(material: Material, rng: random.Random) -> list[Item]:
    """Items of all kinds; none where there is no English."""
    found: dict[tuple[str, str], list[Item]] = defaultdict(list)
    for document in material.divided:
        candidates: dict[tuple[str, str], list[Change]] = defaultdict(list)
        for change in changes(document):
            candidates[change.kind, change.direction].append(change)
        for key in sorted(candidates):
            chosen = rng.sample(candidates[key], min(len(candidates[key]), PER_DOCUMENT))
            found[key] += [pair(document, change) for change in chosen]
    items: dict[str, list[Item]] = defaultdict(list)
    for kind, directions in _CONTRASTS:
        share = min(ITEMS_OF_A_KIND // len(directions), *(len(found[kind, direction]) for direction in directions))
        for direction in directions:
            items[kind] += rng.sample(found[kind, direction], share)
    return [item for each in items.values() for item in rng.sample(each, len(each))]


def changes(document: Document) -> Iterator[Change]:
    """Every change that makes the document's English wrong in one place."""
    for run in _RUN.finditer(document.text):
        words = [(word[0], run.start() + word.start(), run.start() + word.end()) for word in _WORD.finditer(run[0])]
        if is_prose([word for word, _, _ in words]):
            for find in _KINDS:
                yield from find(words)


def is_prose(words: list[str]) -> bool:
    """Whether words that stand side by side are English and not code."""
    neither = [not keyword.iskeyword(word) for word in words]
    return len(words) >= SHORTEST_RUN and sum(a and b for a, b in itertools.pairwise(neither)) >= 2


def _neighbours(words: list[Word], count: int) -> Iterator[tuple[Word, ...]]:
    """Words with single spaces between them, and one more word of the run behind them."""
    for place in range(len(words) - count):
        chosen = tuple(words[place : place + count])
        if all(b[1] - a[2] == 1 for a, b in itertools.pairwise(chosen)):
            yield chosen


def _order(words: list[Word]) -> Iterator[Change]:
    for (first, start, _), (second, _, end) in _neighbours(words, 2):
        kind = _FIRST.get(first)
        if kind and len(second) > 2 and second not in _FIRST and not keyword.iskeyword(second):
            yield Change(kind, start, end, (f"{second} {first}",))


def _preposition(words: list[Word]) -> Iterator[Change]:
    for (first, start, end), _ in _neighbours(words, 2):
        if first in _PARTNERS:
            yield Change("preposition", start, end, (_PARTNERS[first],), first)


def _article(words: list[Word]) -> Iterator[Change]:
    for (first, start, end), (second, _, _) in _neighbours(words, 2):
        if first in ("a", "an") and len(second) > 1:
            yield Change("article", start, end, ("an" if first == "a" else "a",), first)


def _demonstrative(words: list[Word]) -> Iterator[Change]:
    for (first, start, end), (second, _, _) in _neighbours(words, 2):
        plural = is_plural(second)
        if (
            len(second) > 3
            and first == ("these" if plural else "this")
            and second not in (*_MODALS, *_NUMBERS.values())
        ):
            yield Change("demonstrative", start, end, ("this" if plural else "these",), first)


def _agreement(words: list[Word]) -> Iterator[Change]:
    plurals = {plural: singular for singular, plural in _NUMBERS.items()}
    for (first, _, _), (noun, _, _), (verb, start, end) in _neighbours(words, 3):
        if first not in _DETERMINERS | {"all", "some", "those"} or noun in _OF_NO_NUMBER:
            continue
        if is_plural(noun) and verb in plurals:
            yield Change("agreement", start, end, (plurals[verb],), f"plural {plurals[verb]}")
        elif not noun.endswith("s") and verb in _NUMBERS:
            yield Change("agreement", start, end, (_NUMBERS[verb],), f"singular {verb}")


def _verb(words: list[Word]) -> Iterator[Change]:
    for (first, _, _), (verb, start, end) in _neighbours(words, 2):
        if first in _MODALS and len(verb) > 2 and verb not in _NOT_VERBS and not verb.endswith(("ly", "s")):
            yield Change("verb", start, end, (third_person(verb),), "base")
        elif first == "it" and len(verb) > 3 and is_plural(verb) and verb not in _NOT_THIRD_PERSON:
            yield Change("verb", start, end, (base_form(verb),), "third person")


def is_plural(noun: str) -> bool:
    """Whether a noun ends as plurals do (and verbs of the third person)."""
    return noun.endswith("s") and not noun.endswith(("ss", "us", "is"))


def third_person(verb: str) -> str:
    """return -> returns, match -> matches, copy -> copies."""
    if verb.endswith(("s", "x", "sh", "ch", "o")):
        return f"{verb}es"
    return f"{verb[:-1]}ies" if verb.endswith("y") and verb[-2] not in "aeiou" else f"{verb}s"


def base_form(verb: str) -> str:
    """The inverse of `third_person`."""
    if verb in _ENDING_IN_E:
        return verb[:-1]
    if verb.endswith("ies"):
        return f"{verb[:-3]}y"
    return verb[:-2] if verb.endswith(("sses", "xes", "shes", "ches", "oes")) else verb[:-1]


_KINDS: tuple[Callable[[list[Word]], Iterator[Change]], ...] = (
    _order,
    _preposition,
    _article,
    _demonstrative,
    _agreement,
    _verb,
)
_CONTRASTS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("determiner", ("",)),
    ("auxiliary", ("",)),
    ("genitive", ("",)),
    *(("preposition", both) for both in _EXCHANGED),
    ("article", ("a", "an")),
    ("demonstrative", ("these", "this")),
    *(("agreement", (f"plural {verb}", f"singular {verb}")) for verb in _NUMBERS),
    ("verb", ("base", "third person")),
)
