"""Ending a text at a stop string, even where the string is split over several deltas."""

from __future__ import annotations

from collections.abc import Sequence


class StopStrings:
    """Passes text through until one of `stops` appears; holds back what may be the beginning of one.

    The text ends where the first stop string is complete (if several complete with the same character, at the one that
    began first), so the result does not depend on how the text was split. The concatenated output is the text before
    that stop string, or the whole text if none appears.

    Attributes:
        found: The stop string that ended the text, or None.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""
        self.found: str | None = None

    def push(self, text: str) -> str:
        """Returns the text that certainly precedes any stop string."""
        if not self._stops or self.found is not None:
            return "" if self.found is not None else text
        self._held += text
        places = [(at + len(stop), at, stop) for stop in self._stops if (at := self._held.find(stop)) >= 0]
        if places:
            _, at, self.found = min(places)
            out, self._held = self._held[:at], ""
            return out
        keep = max((_overlap(self._held, stop) for stop in self._stops), default=0)
        out, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        return out

    def finish(self) -> str:
        """Returns the held-back text, which turned out not to be a stop string."""
        out, self._held = self._held, ""
        return out


def _overlap(text: str, stop: str) -> int:
    """Length of the longest proper prefix of `stop` that `text` ends with."""
    longest = min(len(text), len(stop) - 1)
    return next((size for size in range(longest, 0, -1) if text.endswith(stop[:size])), 0)
