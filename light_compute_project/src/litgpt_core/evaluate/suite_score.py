"""Scores a suite's items with a scorer, and says what the scores are: accuracy, bits, chance.

For one item with bits b_1 (the right choice), b_2, ... b_k:

    accuracy      1 if b_1 is the smallest; shared with the choices that tie with it
    choice bits   -log2 of the right choice's probability among the choices: chance is log2 k, 0 is perfect
    margin        min(b_2, ...) - b_1, bits by which the right choice is preferred
    answer bits   b_1: what the right answer costs, given the context

Accuracy is what people read; choice bits change smoothly, so they tell two small models apart with far fewer items.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from litgpt_core.evaluate.items import Fitted, items_sha256
from litgpt_core.evaluate.scorer import Scorer
from litgpt_core.evaluate.statistics import Estimate, Values, clustered_mean


@dataclass(frozen=True, kw_only=True)
class ItemScore:
    """One item's result; what is stored."""

    identity: str
    kind: str
    cluster: str
    bits: list[float]
    """-log2 p of each choice, the right one first."""
    clean: bool | None = None
    """Whether the training text lacks it; None: not looked for."""

    @property
    def accuracy(self) -> float:
        """1, 0, or a share where several choices tie."""
        least = min(self.bits)
        return (self.bits[0] == least) / self.bits.count(least)

    @property
    def choice_bits(self) -> float:
        """-log2 p(right | one of the choices)."""
        least = min(self.bits)
        return self.bits[0] - least + math.log2(math.fsum(2.0 ** (least - each) for each in self.bits))

    @property
    def margin(self) -> float:
        """Bits by which the right choice is preferred to the best wrong one."""
        return min(self.bits[1:]) - self.bits[0]


MEASURES = ("accuracy", "choice_bits", "margin")


@dataclass(frozen=True, kw_only=True)
class SuiteScore:
    """All items of one suite under one model."""

    suite: str
    scores: list[ItemScore] = field(repr=False)
    sha256: str
    """Of the items."""
    unequal: int = 0
    too_long: int = 0

    def estimate(self, measure: str = "accuracy", *, kind: str | None = None, clean: bool = False) -> Estimate:
        """Mean of a measure; of one kind, or of clean items only, if requested. At least one item must be left."""
        chosen = [
            one for one in self.scores if (kind is None or one.kind == kind) and not (clean and one.clean is False)
        ]
        values = np.array([getattr(one, measure) for one in chosen], dtype=np.float64)
        return clustered_mean(values, [one.cluster for one in chosen])

    @property
    def chance(self) -> float:
        """Accuracy of a model of uniform logits, exactly."""
        return math.fsum(1 / len(one.bits) for one in self.scores) / len(self.scores)

    @property
    def chance_bits(self) -> float:
        """Its choice bits."""
        return math.fsum(math.log2(len(one.bits)) for one in self.scores) / len(self.scores)

    @property
    def kinds(self) -> list[str]:
        """In order of appearance."""
        return list(dict.fromkeys(one.kind for one in self.scores))

    @property
    def dirty(self) -> int:
        """Items that the training text holds."""
        return sum(one.clean is False for one in self.scores)

    def plain(self) -> dict[str, Any]:
        """For JSON: the numbers first, then the items."""
        found: dict[str, Any] = {"n": len(self.scores), "chance": self.chance, "chance_bits": self.chance_bits}
        for measure in MEASURES:
            estimate = self.estimate(measure)
            found[measure] = {"value": estimate.value, "se": _finite(estimate.se)}
        found["clusters"] = self.estimate().clusters
        found["contaminated"] = self.dirty if any(one.clean is not None for one in self.scores) else None
        if self.dirty and self.dirty < len(self.scores):
            found["clean_accuracy"] = self.estimate(clean=True).value
            found["clean_choice_bits"] = self.estimate("choice_bits", clean=True).value
        found["kinds"] = {
            kind: {
                "n": sum(one.kind == kind for one in self.scores),
                **{measure: self.estimate(measure, kind=kind).value for measure in MEASURES},
            }
            for kind in self.kinds
        }
        found |= {"items_sha256": self.sha256, "left_out": {"unequal": self.unequal, "too_long": self.too_long}}
        found["items"] = [
            [one.identity, one.kind, one.cluster, [round(bits, 5) for bits in one.bits], one.clean]
            for one in self.scores
        ]
        return found

    @classmethod
    def from_plain(cls, suite: str, stored: dict[str, Any]) -> SuiteScore:
        """What `plain` wrote."""
        scores = [
            ItemScore(identity=identity, kind=kind, cluster=cluster, bits=bits, clean=clean)
            for identity, kind, cluster, bits, clean in stored["items"]
        ]
        return cls(suite=suite, scores=scores, sha256=stored["items_sha256"], **stored["left_out"])


def score_suite(suite: str, fitted: Fitted, scorer: Scorer, *, clean: Sequence[bool] | None = None) -> SuiteScore:
    """Score the items of a suite.

    Args:
        suite: Its name.
        fitted: At least one item.
        scorer: Whose tokenizer fitted them.
        clean: For each item whether the training text lacks it.
    """
    scored = scorer.choice_logprobs(fitted.requests)
    flags = clean if clean is not None else [None] * len(fitted.items)
    scores = [
        ItemScore(
            identity=item.identity,
            kind=item.kind,
            cluster=item.cluster,
            bits=[-float(choice.sum()) / math.log(2) for choice in choices],
            clean=flag,
        )
        for item, choices, flag in zip(fitted.items, scored, flags, strict=True)
    ]
    return SuiteScore(
        suite=suite,
        scores=scores,
        sha256=items_sha256(fitted.items),
        unequal=fitted.unequal,
        too_long=fitted.too_long,
    )


def values_of(scores: Sequence[ItemScore], measure: str) -> Values:
    """(n,) of one measure."""
    return np.array([getattr(one, measure) for one in scores], dtype=np.float64)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
