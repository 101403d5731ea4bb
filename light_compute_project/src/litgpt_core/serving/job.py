"""One request inside the server: created in the event loop, filled by a worker's thread, read in the event loop."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from litgpt_core.core.errors import LightComputeError
from litgpt_core.generation.request import Delta, FinishReason, GenerationRequest, join_deltas

FLUSH_S = 0.02
"""Minimum interval between two deliveries to one reader: 50 per second look continuous, and sending costs CPU time."""
FLUSHES_PER_S = 400
"""Approximate limit of deliveries per second to all readers together; with many readers, each interval is longer."""


class TimedOut(LightComputeError):
    """The request took longer than the server allows."""


class Stopped(LightComputeError):
    """The server is shutting down."""


@dataclass(eq=False)
class Job:
    """A request and its results so far.

    The worker calls `deliver` and `fail`; the reader awaits `deltas` or `result`, and calls `cancel` when it leaves.
    """

    request: GenerationRequest
    deadline: float
    """In seconds of time.monotonic."""
    submitted_at: float = field(default_factory=time.monotonic)
    first_token: float | None = None
    cancelled: bool = False
    error: Exception | None = None
    finish_reason: FinishReason | None = None
    new_tokens: int = 0
    reused_tokens: int = 0
    """Tokens of the prompt that were in the model's cache already."""
    drafted_tokens: int = 0
    """Tokens that speculative decoding has verified."""
    accepted_tokens: int = 0
    """Those that were right."""

    def __post_init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._event = asyncio.Event()
        self._lock = threading.Lock()
        self._deltas: list[Delta] = []
        self._wake_at = 0.0

    # --- the worker's side

    def deliver(self, delta: Delta, *, n_running: int = 0) -> bool:
        """Store a delta; returns whether the reader should be woken now, given the number of running sequences."""
        with self._lock:
            self._deltas.append(delta)
        self.new_tokens += len(delta.token_ids)
        if self.first_token is None and delta.token_ids:
            self.first_token = time.monotonic()
        self.finish_reason = delta.finish_reason
        now = time.monotonic()
        if delta.finish_reason is None and now < self._wake_at:
            return False
        self._wake_at = now + max(FLUSH_S, n_running / FLUSHES_PER_S)
        return True

    def fail(self, error: Exception) -> None:
        """End with an error."""
        self.error, self.finish_reason = error, "error"
        self.wake()

    def wake(self) -> None:
        """Wake the reader; callable from any thread."""
        wake_all([self])

    # --- the reader's side

    def cancel(self) -> None:
        """The reader has left: the worker frees the slot."""
        self.cancelled = True

    async def deltas(self) -> AsyncIterator[Delta]:
        """Deltas as they arrive; raises the error that ended the request. Leaving early cancels it."""
        try:
            while True:
                await self._event.wait()
                self._event.clear()
                with self._lock:
                    deltas, self._deltas = self._deltas, []
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
        """The complete result."""
        return join_deltas([delta async for delta in self.deltas()])

    def set_event(self) -> None:
        """Call only in the event loop."""
        self._event.set()


def wake_all(jobs: list[Job]) -> None:
    """Wake the readers of these jobs, with one message to each event loop; callable from any thread."""
    by_loop: dict[asyncio.AbstractEventLoop, list[Job]] = {}
    for job in jobs:
        by_loop.setdefault(job._loop, []).append(job)
    for loop, its_jobs in by_loop.items():
        if not loop.is_closed():
            loop.call_soon_threadsafe(_set_events, its_jobs)


def _set_events(jobs: list[Job]) -> None:
    for job in jobs:
        job.set_event()
