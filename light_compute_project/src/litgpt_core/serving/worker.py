"""The thread that owns a model: takes jobs from a bounded queue, writes them side by side, gives deltas back.

    submit --> waiting (bounded) --> a slot of the batch --> deltas --> Job        continuous batching: jobs join and
                    |                       |                                      leave between two steps
                  Busy               cancelled, timed out: dropped, the slot is free

An error of one text ends that text; one of the whole batch ends all its texts, and the next ones get a new batch.
"""

from __future__ import annotations

import collections
import logging
import threading
import time
from typing import TYPE_CHECKING

from litgpt_core.core.errors import LightComputeError
from litgpt_core.serving.job import Job, Stopped, TimedOut, wake_all

if TYPE_CHECKING:
    from litgpt_core.generation.continuous_batch import ContinuousBatch
    from litgpt_core.generation.engine import Engine
    from litgpt_core.generation.sequence_state import SequenceState

logger = logging.getLogger(__name__)

PREFILL = 256
"""Prompt tokens read between two tokens of the others."""
IDLE_S = 20.0
"""Seconds without work after which the cache is freed."""


class Busy(LightComputeError):
    """The queue is full.

    Attributes:
        retry_after_s: When it may be worth trying again.
    """

    def __init__(self, given: str, *, retry_after_s: int) -> None:
        super().__init__(given, needed="a free place", fix=f"the same again in {retry_after_s} s")
        self.retry_after_s = retry_after_s


class Worker:
    """See the module.

    Args:
        engine: Used by this worker's thread alone from now on.
        slots: Most texts at once.
        queue: Most jobs that wait.
        name: Of the model, for logs.
    """

    def __init__(self, engine: Engine, *, slots: int, queue: int, name: str) -> None:
        self.engine, self.name = engine, name
        self._slots, self._queue = slots, queue
        self._waiting: collections.deque[Job] = collections.deque()
        self._live: dict[SequenceState, Job] = {}
        self._changed = threading.Condition()
        self._closing = False
        self._recent_s = 1.0  # how long a job has taken lately
        self._thread = threading.Thread(target=self._work, name=f"worker {name}", daemon=True)
        self._thread.start()

    @property
    def running(self) -> int:
        """Texts being written."""
        return len(self._live)

    @property
    def waiting(self) -> int:
        """Jobs without a slot."""
        return len(self._waiting)

    @property
    def idle(self) -> bool:
        """Whether nothing is running or waiting."""
        return not self._live and not self._waiting

    def submit(self, job: Job) -> None:
        """Hand a job over; its deltas come to it.

        Raises:
            Busy: Slots and queue are full.
            Stopped: The worker is closing.
        """
        with self._changed:
            if self._closing:
                raise Stopped("The server is shutting down.")
            if len(self._live) + len(self._waiting) >= self._slots + self._queue:
                self._waiting = collections.deque(waiting for waiting in self._waiting if not waiting.cancelled)
            if len(self._live) + len(self._waiting) >= self._slots + self._queue:
                rounds = (len(self._waiting) + self._slots) / self._slots
                wait = max(1, min(60, round(rounds * self._recent_s)))
                raise Busy(
                    f"{len(self._live)} texts are being written and {len(self._waiting)} wait.", retry_after_s=wait
                )
            self._waiting.append(job)
            self._changed.notify()

    def close(self, *, drain_s: float) -> None:
        """Finish what is running and waiting, within `drain_s` seconds; what is left then gets `Stopped`."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(drain_s)
        with self._changed:
            for job in [*self._live.values(), *self._waiting]:
                job.cancel()
                job.fail(Stopped("The server was shut down before the answer was complete."))
            self._waiting.clear()
            self._changed.notify()
        self._thread.join(5.0)

    # --- the thread

    def _work(self) -> None:
        while self._wait_for_work(None):
            try:
                with self.engine.open_batch(n_slots=self._slots, prefill=PREFILL) as batch:
                    while self._wait_for_work(IDLE_S):
                        self._turn(batch)
            except Exception as problem:  # whatever it was, the next request gets a fresh batch
                with self._changed:  # those that wait too: a batch that cannot even be opened would never take them
                    jobs, self._live = [*self._live.values(), *self._waiting], {}
                    self._waiting.clear()
                logger.exception("The batch of %s failed; %d requests end", self.name, len(jobs))
                for job in jobs:
                    job.fail(problem)

    def _wait_for_work(self, patience_s: float | None) -> bool:
        """Whether there is work; False when there was none for so long, or when the worker closes and has none."""
        with self._changed:
            while not self._live and not self._waiting:
                if self._closing or not self._changed.wait(patience_s):
                    return False
            return True

    def _turn(self, batch: ContinuousBatch) -> None:
        """Admit, drop, one step of all."""
        now = time.monotonic()
        for text, job in list(self._live.items()):
            if job.cancelled or now > job.deadline:
                batch.drop(text)
                del self._live[text]
                self._end_unfinished(job)
        while batch.has_room and (coming := self._next_waiting(now)) is not None:
            try:
                text = self.engine.new_sequence(coming.request)
            except Exception as problem:
                coming.fail(problem)
                continue
            batch.add(text)
            self._live[text] = coming
        wake = []
        for text, delta in batch.step():
            job = self._live[text]
            if text.error is not None:
                logger.warning("A text of %s failed: %r", self.name, text.error)
                job.error = text.error
            if job.deliver(delta, neighbours=len(self._live)):
                wake.append(job)
            if delta.finish_reason is not None:
                del self._live[text]
                self._recent_s += 0.2 * (time.monotonic() - job.asked - self._recent_s)
        wake_all(wake)

    def _next_waiting(self, now: float) -> Job | None:
        while True:
            with self._changed:
                if not self._waiting:
                    return None
                job = self._waiting.popleft()
            if not job.cancelled and now <= job.deadline:
                return job
            self._end_unfinished(job)

    def _end_unfinished(self, job: Job) -> None:
        if not job.cancelled:
            seconds = time.monotonic() - job.asked
            job.fail(TimedOut(f"The request was ended after {seconds:.0f} s, with {job.new_tokens} tokens written."))
