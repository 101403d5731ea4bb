"""The context window of one growing sequence: its ids, where the window starts, and how much of it is cached."""

from __future__ import annotations

from dataclasses import dataclass

from litgpt_core.generation.decoder import Feed


def window_start(start: int, *, length: int, block_size: int) -> int:
    """Start of the context window for `length` tokens, given that it started at `start` before.

    Policy for long sequences: the window grows to block_size tokens. It then restarts with the last block_size // 2
    tokens and grows again, so that the cache is refilled once per half window instead of once per token.
    """
    return start if length - start <= block_size else length - max(1, block_size // 2)


@dataclass(kw_only=True)
class TextWindow:
    """Ids and context window of one sequence."""

    ids: list[int]
    """Prompt and continuation."""
    block_size: int
    """The model's block_size."""
    start: int = 0
    """Index in `ids` at which the window starts."""
    cached: int = 0
    """Number of ids of the window in the cache."""

    @property
    def pending(self) -> int:
        """Number of ids of the present window that are not yet in the cache."""
        length = len(self.ids)
        if length - self.start <= self.block_size:
            return length - self.start - self.cached
        return length - self._moved()

    @property
    def room(self) -> int:
        """Number of single-token steps before the window moves, given one pending id."""
        return self.block_size - (len(self.ids) - self.start) + 1

    def next_feed(self, sequence: int, *, limit: int | None = None) -> Feed:
        """The pending ids of the window, at most `limit`; counts them as cached."""
        if len(self.ids) - self.start > self.block_size:
            self.start, self.cached = self._moved(), 0
        first = self.start + self.cached
        ids = self.ids[first:] if limit is None else self.ids[first : first + limit]
        feed = Feed(sequence, self.cached, ids)
        self.cached += len(ids)
        return feed

    def _moved(self) -> int:
        return window_start(self.start, length=len(self.ids), block_size=self.block_size)
