"""Two checkpoints on the same items or the same text: the difference with an interval, and in words.

Differences are taken item by item (for bits per byte, block by block), so what makes an item hard for both cancels.
Their sign is that of first minus second; exchanging the two changes the sign and nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from litgpt_core.evaluate.statistics import Estimate, clustered_mean, clustered_ratio, more_units, sign_test
from litgpt_core.evaluate.suite_score import SuiteScore, values_of
from litgpt_core.evaluate.text_score import BLOCK_BYTES

BITS_PER_BYTE = "bits per byte"
SMALLER_IS_BETTER = {BITS_PER_BYTE, "choice_bits"}
FEWEST_TEXTS = 20
"""From so many texts on, a text is a cluster; else each block of `BLOCK_BYTES` is."""
MOST_MORE = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Difference:
    """First minus second, on what both were measured on."""

    subject: str
    """The suite, or the text."""
    measure: str
    first: str
    second: str
    estimate: Estimate
    wins: int = 0
    """Items that only the first has right."""
    losses: int = 0
    """Items that only the second has right."""
    dropped: int = 0
    """Items that only one of the two was measured on."""

    @property
    def distinguishable(self) -> bool:
        """Whether the 95 % interval leaves 0 out."""
        return abs(self.estimate.value) > self.estimate.half_width

    @property
    def better(self) -> str | None:
        """The better one's name; None where they are indistinguishable."""
        if not self.distinguishable:
            return None
        first = (self.estimate.value < 0) == (self.measure in SMALLER_IS_BETTER)
        return self.first if first else self.second

    @property
    def sentence(self) -> str:
        """What the numbers say."""
        e, unit = self.estimate, "kB of text" if self.measure == BITS_PER_BYTE else "items"
        measure = self.measure.replace("_", " ")
        numbers = (
            f"{e.value:+.4f} {measure}, 95 % interval {e.value - e.half_width:+.4f} to {e.value + e.half_width:+.4f}"
        )
        counts = f"{e.n:,} {unit} in {e.clusters:,} clusters"
        if self.better:
            other = self.second if self.better == self.first else self.first
            return f"{self.subject}: {self.better} is better than {other} ({numbers}; {counts})"
        more = more_units(e)
        if more is None:
            outlook = "no difference was measured"
        elif more > MOST_MORE:
            outlook = f"a difference of this size would need more than {MOST_MORE:,} {unit}"
        else:
            outlook = f"if it is as large as measured, {rounded_up(more):,} more {unit} would tell"
        return f"{self.subject}: {self.first} and {self.second} are indistinguishable ({numbers}; {counts}); {outlook}"

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        e = self.estimate
        return {
            **{
                key: getattr(self, key)
                for key in ("subject", "measure", "first", "second", "wins", "losses", "dropped")
            },
            "difference": e.value,
            "se": e.se,
            "low": e.value - e.half_width,
            "high": e.value + e.half_width,
            "n": e.n,
            "clusters": e.clusters,
            "better": self.better,
            "sentence": self.sentence,
            "sign_test_p": sign_test(self.wins, self.losses) if self.measure == "accuracy" else None,
        }


def rounded_up(number: int) -> int:
    """To one significant digit: the estimate is no better."""
    unit = int(10 ** max(0, len(str(number)) - 1))
    return -(-number // unit) * unit


def compare_suites(
    a: SuiteScore, b: SuiteScore, *, names: tuple[str, str], measure: str = "accuracy"
) -> Difference | None:
    """The difference on the items that both were measured on; None where there is no such item."""
    other = {one.identity: one for one in b.scores}
    pairs = [(one, other[one.identity]) for one in a.scores if one.identity in other]
    if not pairs:
        return None
    firsts, seconds = ([pair[side] for pair in pairs] for side in (0, 1))
    differences = values_of(firsts, measure) - values_of(seconds, measure)
    right = values_of(firsts, "accuracy") - values_of(seconds, "accuracy")
    return Difference(
        subject=a.suite,
        measure=measure,
        first=names[0],
        second=names[1],
        estimate=clustered_mean(differences, [one.cluster for one in firsts]),
        wins=int((right > 0).sum()),
        losses=int((right < 0).sum()),
        dropped=len(a.scores) + len(b.scores) - 2 * len(pairs),
    )


def compare_texts(
    a: Sequence[dict[str, Any]], b: Sequence[dict[str, Any]], *, names: tuple[str, str]
) -> Difference | None:
    """The difference in bits per byte on the texts that both have; None where there is none.

    Args:
        a, b: Texts as `record.py` stores them: `name`, `sha256`, `n_bytes`, `blocks` (bits of each `BLOCK_BYTES`).
        names: Of the two models; their tokenizers may differ.
    """
    other = {(text["name"], text["sha256"]): text for text in b}
    pairs = [(text, other[key]) for text in a if (key := (text["name"], text["sha256"])) in other]
    if not pairs:
        return None
    bits, sizes, clusters = [], [], []
    for number, (first, second) in enumerate(pairs):
        bits.append(np.array(first["blocks"], dtype=np.float64) - np.array(second["blocks"], dtype=np.float64))
        sizes.append(block_sizes(first["n_bytes"]))
        few = len(pairs) < FEWEST_TEXTS
        clusters += [f"{number} {block}" if few else str(number) for block in range(len(bits[-1]))]
    return Difference(
        subject=f"{len(pairs)} texts" if len(pairs) > 1 else str(pairs[0][0]["name"]),
        measure=BITS_PER_BYTE,
        first=names[0],
        second=names[1],
        estimate=clustered_ratio(np.concatenate(bits), np.concatenate(sizes), clusters),
        dropped=len(a) + len(b) - 2 * len(pairs),
    )


def block_sizes(n_bytes: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Bytes of each block of a text, shape (ceil(n_bytes / BLOCK_BYTES),)."""
    edges = np.unique(np.arange(0, n_bytes + BLOCK_BYTES, BLOCK_BYTES).clip(max=n_bytes))
    return np.asarray(np.diff(edges), dtype=np.float64)
