"""Speculative decoding by n-gram lookup (prompt lookup): what followed the latest tokens when they occurred before is
verified in one pass of the model.

    for i in range(n): ...  for i in range(     draft: n ) : ...      one pass of 1 + k tokens reads the weights once
                                                verified: n ) :       and returns up to k + 1 tokens

A drafted token is kept if it is the token that the sequence's own random number selects from the logits before it. So
the text is the same as without drafts, greedy or with a seed, unlike in the rejection sampling of Leviathan et al.
(2023, "Fast Inference from Transformers via Speculative Decoding"), which keeps only the distribution. This needs a
decoder whose results for a token do not depend on the tokens that are fed with it.

Longer drafts pay where a pass is limited by reading weights; `DraftBudget` decides by the passes that it has measured.
"""

from __future__ import annotations

from collections.abc import Sequence

SPECULATIVE = ("off", "ngram")
SHORTEST, LONGEST = 2, 4
"""Tokens that must have occurred before; the longest match decides."""
MOST = 16
"""Maximum number of drafted tokens."""
_FIRST_RATE, _RATE_STEP, _RECOVERY = 0.7, 0.1, 0.01
_LARGEST_RATE = 0.98
_COST_STEP = 0.3


class NgramDraft:
    """Drafts of one growing sequence.

    Attributes:
        drafted: Tokens drafted so far.
        accepted: Those that were right.
        rate: Estimated probability that a drafted token is right, given that those before it are.
    """

    def __init__(self) -> None:
        self.drafted = self.accepted = 0
        self.rate = _FIRST_RATE
        self._after: dict[tuple[int, ...], int] = {}  # n-gram -> index of the token that followed it last
        self._indexed = SHORTEST

    def draft(self, ids: Sequence[int], n: int) -> list[int]:
        """n tokens that may follow `ids`, which begin like those of the last call; empty without a match.

        >>> NgramDraft().draft([5, 6, 7, 8, 5, 6], 3)
        [7, 8, 5]
        """
        length = len(ids)
        for end in range(self._indexed, length):
            for size in range(SHORTEST, min(LONGEST, end) + 1):
                self._after[tuple(ids[end - size : end])] = end
        self._indexed = max(self._indexed, length)
        for size in range(min(LONGEST, length), SHORTEST - 1, -1):
            if (place := self._after.get(tuple(ids[length - size :]))) is not None:
                period = length - place  # a draft beyond the end repeats itself
                return [ids[place + i % period] for i in range(n)]
        return []

    def verified(self, *, drafted: int, accepted: int) -> None:
        """Count a draft, of which the first `accepted` tokens were right."""
        self.drafted += drafted
        self.accepted += accepted
        for _ in range(accepted):
            self.rate += _RATE_STEP * (1.0 - self.rate)
        if accepted < drafted:
            self.rate -= _RATE_STEP * self.rate

    def skipped(self) -> None:
        """No draft was worth its cost; after many such steps one is tried again."""
        self.rate += _RECOVERY * (_FIRST_RATE - self.rate)


class DraftBudget:
    """How many tokens to draft: as many as give the most tokens per second, by the seconds that passes took."""

    def __init__(self) -> None:
        self._step_s: dict[int, float] = {}  # by number of sequences: one token of each
        self._row_s: float | None = None  # one more token of any sequence

    def length(self, rate: float, *, n_sequences: int) -> int:
        """Tokens to draft for a sequence whose drafted tokens are right with probability `rate`; 0 for none.

        With k drafted tokens, (1 - rate^(k + 1)) / (1 - rate) tokens are expected from a pass.
        """
        step_s = self._step_s.get(n_sequences)
        if step_s is None:
            return 0  # measure a step without drafts first
        row_s = step_s / n_sequences / MOST if self._row_s is None else self._row_s
        rate = min(rate, _LARGEST_RATE)
        expected, best, chosen = 0.0, 0.0, 0
        for k in range(MOST + 1):
            expected += rate**k
            speed = expected / (step_s + k * n_sequences * row_s)
            if speed > best:
                best, chosen = speed, k
        return chosen

    def stepped(self, seconds: float, *, n_sequences: int) -> None:
        """One token of each of n sequences took so long."""
        before = self._step_s.get(n_sequences, seconds)
        self._step_s[n_sequences] = before + _COST_STEP * (seconds - before)

    def verified(self, seconds: float, *, n_sequences: int, n_drafted: int) -> None:
        """A pass with `n_drafted` further tokens took so long."""
        row_s = max(0.0, (seconds - self._step_s[n_sequences]) / n_drafted)
        before = row_s if self._row_s is None else self._row_s
        self._row_s = before + _COST_STEP * (row_s - before)
