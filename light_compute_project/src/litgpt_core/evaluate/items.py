"""Items: a context with several continuations, of which the first is right; and their division into scored ids.

The rule at the boundary: context and continuation are tokenized together, as a text would be. Ids that all
continuations of an item share count as context; the rest is scored. Scores therefore compare whole texts, and no
division is forced that the tokenizer would not make.
"""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from litgpt_core.core.errors import TokenizerError
from litgpt_core.evaluate.scorer import Continuations, Ids, Scorer


@dataclass(frozen=True, kw_only=True)
class Item:
    """One question."""

    kind: str
    """Category within the suite."""
    cluster: str
    """Items of one cluster are not independent of each other: the file, the sentence frame they come from."""
    context: str
    choices: tuple[str, ...]
    """At least two; the first is right."""
    keep: int = 0
    """How many choices, the right one included, `fit` keeps: the first ones of equal length in tokens. 0: all."""

    @property
    def identity(self) -> str:
        """12 hex digits of its content, by which two results are paired."""
        content = repr((self.kind, self.context, self.choices))
        return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()[:12]

    def texts(self) -> list[str]:
        """Context and each choice as one text."""
        return [self.context + choice for choice in self.choices]


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """Items that a tokenizer and a window allow, with their ids."""

    items: list[Item]
    requests: list[Continuations]
    unequal: int
    """Left out: too few choices of equal length in tokens, or a text that the tokenizer cannot represent."""
    too_long: int
    """Left out: longer than the window."""


def fit(items: Sequence[Item], scorer: Scorer, *, of_a_kind: int | None = None) -> Fitted:
    """Tokenize items; those without enough choices of equal length, or that the window does not hold, are left out.

    With choices of equal length a model of uniform logits scores exactly chance.

    Args:
        items: Of a suite.
        scorer: Its tokenizer and its window count.
        of_a_kind: Most items of one kind, the first ones; None: all.
    """
    kept, requests, unequal, too_long = [], [], 0, 0
    kinds = Counter[str]()
    for item, wholes in zip(items, _encoded_choices(items, scorer), strict=True):
        if of_a_kind is not None and kinds[item.kind] >= of_a_kind:
            continue
        places = _of_equal_length(wholes, keep=item.keep or len(item.choices))
        if not places:
            unequal += 1
            continue
        request = split_choices([whole for place in places if (whole := wholes[place]) is not None])
        if len(request.context) + len(request.choices[0]) - 1 > scorer.block_size:
            too_long += 1
            continue
        kept.append(replace(item, choices=tuple(item.choices[place] for place in places), keep=0))
        requests.append(request)
        kinds[item.kind] += 1
    return Fitted(items=kept, requests=requests, unequal=unequal, too_long=too_long)


def _of_equal_length(wholes: Sequence[Ids | None], *, keep: int) -> list[int]:
    """Places of the right choice and of the first `keep` - 1 others with as many tokens; empty if there are fewer."""
    lengths = [0 if whole is None else len(whole) for whole in wholes]
    places = [place for place, length in enumerate(lengths) if length == lengths[0] > 0]
    return places[:keep] if len(places) >= keep else []


def _encoded_choices(items: Sequence[Item], scorer: Scorer) -> list[list[Ids | None]]:
    """For each item the ids of context and choice together, for every choice; None where a text has no ids."""
    texts = [text for item in items for text in item.texts()]
    try:
        encoded: Iterator[Ids | None] = iter(
            [np.array([scorer.start_id, *ids]) for ids in scorer.tokenizer.encode_batch(texts)]
        )
    except TokenizerError:  # a character that a character vocabulary lacks: find out which items have it
        encoded = iter([_encoded(text, scorer) for text in texts])
    return [[next(encoded) for _ in item.choices] for item in items]


def _encoded(text: str, scorer: Scorer) -> Ids | None:
    try:
        return scorer.encode(text)
    except TokenizerError:
        return None


def split_choices(wholes: Sequence[Ids]) -> Continuations:
    """Whole texts as ids -> the ids they share at the beginning, and the rest of each, at least one id long."""
    most = min(map(len, wholes)) - 1
    columns = zip(*(whole[:most].tolist() for whole in wholes), strict=True)
    shared = sum(1 for _ in itertools.takewhile(lambda column: len(set(column)) == 1, columns))
    return Continuations(wholes[0][:shared], tuple(whole[shared:] for whole in wholes))


def items_sha256(items: Sequence[Item]) -> str:
    """SHA-256 (hex) of a suite's items, in order: equal on every machine for equal material and seed."""
    return hashlib.sha256("".join(item.identity for item in items).encode()).hexdigest()
