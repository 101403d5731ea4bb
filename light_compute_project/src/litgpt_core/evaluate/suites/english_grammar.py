"""Minimal pairs of English from a small grammar, for models without held-out text: a sentence, and one word made wrong.

    subject_verb     the author near the old windows [runs | run]         the subject's number, not the nearest noun's
    determiner_noun  these small [cats | cat]
    reflexive        the queen saw [herself | himself]
    irregular        the girl has [eaten | ate] the apple
    polarity         [no | the] student has ever seen the lake            "ever" needs a negation

After the idea of BLiMP (Warstadt et al. 2020); words and frames are this project's own. Every contrast occurs in both
directions, so that preferring one form, or one number, gains nothing. Only words that the training text knows are used.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable

from litgpt_core.evaluate.items import Item
from litgpt_core.evaluate.suites.material import WORD, Material

ITEMS_OF_A_KIND = 300

PEOPLE = {
    "author": "authors", "user": "users", "student": "students", "teacher": "teachers", "doctor": "doctors",
    "friend": "friends", "player": "players", "writer": "writers", "reader": "readers", "worker": "workers",
    "child": "children", "man": "men", "woman": "women", "boy": "boys", "girl": "girls", "king": "kings",
    "queen": "queens", "brother": "brothers", "sister": "sisters", "father": "fathers", "mother": "mothers",
    "soldier": "soldiers", "servant": "servants", "neighbour": "neighbours", "lady": "ladies", "lord": "lords",
}  # fmt: skip
THINGS = {
    "line": "lines", "value": "values", "result": "results", "table": "tables", "field": "fields", "path": "paths",
    "tree": "trees", "house": "houses", "book": "books", "letter": "letters", "word": "words", "window": "windows",
    "door": "doors", "box": "boxes", "stone": "stones", "river": "rivers", "garden": "gardens", "ship": "ships",
    "sword": "swords", "picture": "pictures", "list": "lists", "number": "numbers", "point": "points",
    "function": "functions", "class": "classes", "method": "methods", "object": "objects", "element": "elements",
    "matrix": "matrices", "graph": "graphs", "edge": "edges", "node": "nodes", "symbol": "symbols",
}  # fmt: skip
VERBS = {
    "run": "runs", "return": "returns", "give": "gives", "take": "takes", "work": "works", "come": "comes",
    "look": "looks", "change": "changes", "need": "needs", "begin": "begins", "stand": "stands", "fall": "falls",
    "live": "lives", "speak": "speaks", "help": "helps", "know": "knows", "move": "moves", "stay": "stays",
    "have": "has", "are": "is", "were": "was", "do": "does",
}  # fmt: skip
ADJECTIVES = ("old", "new", "small", "large", "good", "other", "first", "same", "great", "young", "long", "short")
PREPOSITIONS = ("near", "behind", "with", "without", "of", "from", "under", "above")
HE = ("man", "boy", "king", "father", "brother", "lord")
SHE = ("woman", "girl", "queen", "mother", "sister", "lady")
SEEING = ("saw", "hurt", "helped", "asked", "found", "loved", "killed", "taught", "knew")
IRREGULAR = {
    "ate": "eaten", "took": "taken", "wrote": "written", "gave": "given", "saw": "seen", "knew": "known",
    "broke": "broken", "spoke": "spoken", "chose": "chosen", "drew": "drawn", "began": "begun", "went": "gone",
    "did": "done", "forgot": "forgotten", "showed": "shown", "threw": "thrown",
}  # fmt: skip
NEGATIONS = ("no", "few")
PLAIN = ("the", "some", "this", "each", "many")


def english_grammar(material: Material, rng: random.Random) -> list[Item]:
    """Items of all kinds, of known words only; fewer, or none, where the training text knows too few of them."""
    found: list[Item] = []
    for kind, make in _KINDS.items():
        distinct: dict[str, Item] = {}
        for _ in range(20 * ITEMS_OF_A_KIND):
            frame, context, right, wrong, rest = make(rng)
            words = WORD.findall(f"{context} {right} {wrong} {rest}")
            if len(distinct) == ITEMS_OF_A_KIND:
                break
            if all(material.knows(word) for word in words):
                item = Item(
                    kind=kind,
                    cluster=f"{kind} {frame}",
                    context=context,
                    choices=(f" {right}{rest}", f" {wrong}{rest}"),
                )
                distinct.setdefault(item.identity, item)
        found += _balanced(list(distinct.values()))
    return found


def _balanced(items: list[Item]) -> list[Item]:
    """As many items of each direction: whatever form is right in one is wrong in another."""
    by_direction: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        by_direction[item.cluster.rsplit(" ", 1)[1][:1]].append(item)
    most = min(map(len, by_direction.values())) if len(by_direction) > 1 else 0
    return [item for direction in sorted(by_direction) for item in by_direction[direction][:most]]


Made = tuple[str, str, str, str, str]
"""Frame (the first letter is the direction), context, right word, wrong word, rest of the sentence."""


def _noun(rng: random.Random, table: dict[str, str], plural: bool) -> str:
    noun = rng.choice(list(table))
    return table[noun] if plural else noun


def _subject_verb(rng: random.Random) -> Made:
    plural, distracting = rng.random() < 0.5, rng.random() < 0.5
    verb = rng.choice(list(VERBS))
    forms = (verb, VERBS[verb]) if plural else (VERBS[verb], verb)
    context = f"The {_noun(rng, PEOPLE | THINGS, plural)}"
    if attracted := rng.random() < 0.7:
        near = _noun(rng, THINGS, plural != distracting)
        context += f" {rng.choice(PREPOSITIONS)} the {rng.choice(ADJECTIVES)} {near}"
    frame = f"{'ps'[not plural]}{int(attracted and distracting)}{verb}"
    return frame, context, *forms, ""


def _determiner_noun(rng: random.Random) -> Made:
    plural = rng.random() < 0.5
    singular_form = rng.choice(list(PEOPLE | THINGS))
    plural_form = (PEOPLE | THINGS)[singular_form]
    determiner = rng.choice(("these", "those", "many", "several") if plural else ("this", "that", "every", "each"))
    start = rng.choice(("We saw", "They know", "You need", "I found", "He took"))
    context = f"{start} {determiner} {rng.choice(ADJECTIVES)}"
    forms = (plural_form, singular_form) if plural else (singular_form, plural_form)
    return f"{'ps'[not plural]}{determiner}", context, *forms, " here"


def _reflexive(rng: random.Random) -> Made:
    he = rng.random() < 0.5
    forms = ("himself", "herself") if he else ("herself", "himself")
    verb = rng.choice(SEEING)
    adjective = rng.choice(ADJECTIVES)
    return f"{'hs'[not he]}{verb}", f"The {adjective} {rng.choice(HE if he else SHE)} {verb}", *forms, ""


def _irregular(rng: random.Random) -> Made:
    past = rng.choice(list(IRREGULAR))
    perfect = rng.random() < 0.5
    forms = (IRREGULAR[past], past) if perfect else (past, IRREGULAR[past])
    subject = f"The {rng.choice(ADJECTIVES)} {rng.choice(list(PEOPLE))}"
    return f"{'ps'[not perfect]}{past}", subject + (" has" if perfect else ""), *forms, " it"


def _polarity(rng: random.Random) -> Made:
    """Both directions: with "ever" the negation is right, with "already" the other determiner."""
    negative = rng.random() < 0.5
    words = (rng.choice(NEGATIONS), rng.choice(PLAIN))
    many = words[0] == "few" or words[1] == "many"
    right, wrong = words if negative else words[::-1]
    subject, verb = _noun(rng, PEOPLE, many), "have" if many else "has"
    what = rng.choice(("seen", "known", "found", "given", "taken"))
    adverb = "ever" if negative else "already"
    start = rng.choice(("We think that", "They say that", "I know that", "He knew that"))
    return f"{'ns'[not negative]}{adverb}{what}", start, right, wrong, f" {subject} {verb} {adverb} {what} it"


_KINDS: dict[str, Callable[[random.Random], Made]] = {
    "subject_verb": _subject_verb,
    "determiner_noun": _determiner_noun,
    "reflexive": _reflexive,
    "irregular": _irregular,
    "polarity": _polarity,
}
