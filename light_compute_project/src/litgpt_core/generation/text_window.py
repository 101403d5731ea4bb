"""One text that grows: its ids, which of them the model sees, and how many of those its cache holds."""

from __future__ import annotations

from dataclasses import dataclass

from litgpt_core.generation.decoder import Feed


def window_start(start: int, *, length: int, block_size: int) -> int:
    """Where the model's window begins when `length` tokens exist and it began at `start` before.

    Policy for long texts: the window grows to block_size tokens; the next token then sees only the last block_size //
    2, as a new beginning, and the window grows again. So a cache is filled anew once per half window instead of for
    every token.
    """
    return start if length - start <= block_size else length - max(1, block_size // 2)


@dataclass(kw_only=True)
class TextWindow:
    """The state of one text in the making."""

    ids: list[int]
    """Prompt and continuation."""
    block_size: int
    """The model's."""
    start: int = 0
    """Where the window begins in `ids`."""
    cached: int = 0
    """How many ids of the window are in the cache."""

    @property
    def unread(self) -> int:
        """Ids that the model has not seen in the window it would have now."""
        length = len(self.ids)
        if length - self.start <= self.block_size:
            return length - self.start - self.cached
        return length - self._moved()

    @property
    def room(self) -> int:
        """Ids that may be fed, one by one, before the window moves, where one is unread."""
        return self.block_size - (len(self.ids) - self.start) + 1

    def next_feed(self, sequence: int, *, limit: int | None = None) -> Feed:
        """The ids that the model has not seen yet in this window, at most `limit`; counts them as seen."""
        if len(self.ids) - self.start > self.block_size:
            self.start, self.cached = self._moved(), 0
        first = self.start + self.cached
        ids = self.ids[first:] if limit is None else self.ids[first : first + limit]
        feed = Feed(sequence, self.cached, ids)
        self.cached += len(ids)
        return feed

    def _moved(self) -> int:
        return window_start(self.start, length=len(self.ids), block_size=self.block_size)
