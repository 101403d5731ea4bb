"""Ending a text at a string, although the string may come in pieces."""

from __future__ import annotations

from collections.abc import Sequence


class StopTexts:
    """Lets text through until one of `stops` appears; holds back what may be the beginning of one.

    The text ends where the first stop is complete (of several that are complete with the same character, the one that
    began first), so that it does not matter how the text was cut into pieces. What comes out joins to the text before
    that stop, or to the whole text if none appears.

    Attributes:
        found: The stop that ended the text, or None.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""
        self.found: str | None = None

    def push(self, text: str) -> str:
        """What is certain to stand before any stop."""
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
        """What was held back and is no stop after all."""
        out, self._held = self._held, ""
        return out


def _overlap(text: str, stop: str) -> int:
    """Length of the longest proper beginning of `stop` that `text` ends with."""
    longest = min(len(text), len(stop) - 1)
    return next((size for size in range(longest, 0, -1) if text.endswith(stop[:size])), 0)
