"""One request on its way through the server: made in the event loop, written by a worker's thread, read in the loop."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from litgpt_core.core.errors import LightComputeError
from litgpt_core.generation.request import Delta, FinishReason, GenerationRequest, join_deltas

FLUSH_S = 0.02
"""A reader is woken at most this often: fifty times a second is more than eyes follow, and sending costs time that the
model then lacks.
"""
FLUSHES_PER_S = 400
"""All readers together are woken about so often, so that with many of them each waits a little longer."""


class TimedOut(LightComputeError):
    """The request took longer than the server allows."""


class Stopped(LightComputeError):
    """The server is shutting down."""


@dataclass(eq=False)
class Job:
    """A request and what has come of it so far.

    The worker calls `deliver`, `fail`; the reader awaits `deltas` or `result`, and calls `cancel` when it has gone.
    """

    request: GenerationRequest
    deadline: float
    """On the clock of time.monotonic."""
    asked: float = field(default_factory=time.monotonic)
    first_token: float | None = None
    cancelled: bool = False
    error: Exception | None = None
    finish_reason: FinishReason | None = None
    new_tokens: int = 0

    def __post_init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._event = asyncio.Event()
        self._lock = threading.Lock()
        self._pieces: list[Delta] = []
        self._wake_at = 0.0

    # --- the worker's side

    def deliver(self, delta: Delta, *, neighbours: int = 0) -> bool:
        """Keep a delta; returns whether the reader should be woken now, given so many other texts in the making."""
        with self._lock:
            self._pieces.append(delta)
        self.new_tokens += len(delta.token_ids)
        if self.first_token is None and delta.token_ids:
            self.first_token = time.monotonic()
        self.finish_reason = delta.finish_reason
        now = time.monotonic()
        if delta.finish_reason is None and now < self._wake_at:
            return False
        self._wake_at = now + max(FLUSH_S, neighbours / FLUSHES_PER_S)
        return True

    def fail(self, error: Exception) -> None:
        """End with an error."""
        self.error, self.finish_reason = error, "error"
        self.wake()

    def wake(self) -> None:
        """Let the reader look; from any thread."""
        wake_all([self])

    # --- the reader's side

    def cancel(self) -> None:
        """Nobody reads on: the worker gives its place to others."""
        self.cancelled = True

    async def deltas(self) -> AsyncIterator[Delta]:
        """What comes, as it comes; raises the error that ended it. Leaving early cancels the work."""
        try:
            while True:
                await self._event.wait()
                self._event.clear()
                with self._lock:
                    deltas, self._pieces = self._pieces, []
                if deltas:
                    delta = join_deltas(deltas)
                    failed = delta.finish_reason == "error"
                    if not failed or delta.text:
                        yield delta._replace(finish_reason=None) if failed else delta
                    if delta.finish_reason is not None and not failed:
                        return
                if self.error is not None:
                    raise self.error
        finally:
            self.cancel()

    async def result(self) -> Delta:
        """Everything at once."""
        return join_deltas([delta async for delta in self.deltas()])

    def set_event(self) -> None:
        """In the loop only."""
        self._event.set()


def wake_all(jobs: list[Job]) -> None:
    """Let the readers of these jobs look, with one message to each event loop; from any thread."""
    by_loop: dict[asyncio.AbstractEventLoop, list[Job]] = {}
    for job in jobs:
        by_loop.setdefault(job._loop, []).append(job)
    for loop, its_jobs in by_loop.items():
        if not loop.is_closed():
            loop.call_soon_threadsafe(_set_events, its_jobs)


def _set_events(jobs: list[Job]) -> None:
    for job in jobs:
        job.set_event()
