"""How many prompt tokens a step of the batch prefills: long prompts must not hold up sequences that are being decoded.

Prefilling a prompt of 8,000 tokens takes seconds. While other sequences are decoded,

- a step prefills for about `STEP_S` seconds, judged by what a prompt token took before;
- then, for `REST` times as long as that took, steps only decode: with 4, streams take at most 1.25 times as long;
- the shortest prompts go first, and prompts of up to `SHORT` tokens do not wait for the rest.
"""

from __future__ import annotations

from collections.abc import Sequence

STEP_S = 0.03
REST = 4.0
SHORT = 64
LEAST = 16
"""Prompt tokens of a step, however slow the model is."""


class PrefillBudget:
    """See the module docstring.

    Args:
        most: Maximum number of prompt tokens per step; None for no limit at all.
    """

    def __init__(self, most: int | None) -> None:
        self._most = most
        self._token_s = 0.0  # seconds that a prompt token took most recently
        self._rest_s = 0.0  # seconds of decoding that are owed to the others

    def shares(self, pending: Sequence[int], *, decoding: bool) -> list[int]:
        """Tokens of each prompt for the next step.

        Args:
            pending: Tokens that each prompt still has.
            decoding: Whether other sequences are being decoded.
        """
        if self._most is None:
            return list(pending)
        left, longest = self._most, self._most
        if decoding and self._rest_s > 0:
            left = longest = min(SHORT, self._most)
        elif decoding and self._token_s > 0:
            left = max(LEAST, min(self._most, int(STEP_S / self._token_s)))
        shares = [0] * len(pending)
        for place in sorted(range(len(pending)), key=pending.__getitem__):
            if decoding and self._rest_s > 0 and pending[place] > longest:
                break
            shares[place] = min(pending[place], left)
            left -= shares[place]
        return shares

    def prefilled(self, n_tokens: int, *, seconds: float, decoding: bool) -> None:
        """A step has prefilled so many tokens, and perhaps decoded others."""
        self._token_s = seconds / n_tokens
        if decoding:
            self._rest_s += REST * seconds

    def rested(self, seconds: float) -> None:
        """A step has only decoded."""
        self._rest_s = max(0.0, self._rest_s - seconds)
