"""The thread that owns a model: takes jobs from a bounded queue, decodes them as a batch, and delivers their deltas.

    submit --> waiting (bounded) --> a slot of the batch --> deltas --> Job        continuous batching: jobs join and
                    |                       |                                      leave between two steps
                  Busy               cancelled, timed out: dropped, the slot is freed

An error of one sequence ends that sequence. An error of the batch ends all its sequences; later ones get a new batch.
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
"""Maximum number of prompt tokens per step (chunked prefill)."""
IDLE_S = 600.0
"""Seconds without work after which the cache is freed. Until then the next turn of a conversation, which its reader has
to read and answer first, need not prefill the turns before."""


class Busy(LightComputeError):
    """The queue is full.

    Attributes:
        retry_after_s: Seconds after which a retry may succeed.
    """

    def __init__(self, given: str, *, retry_after_s: int) -> None:
        super().__init__(given, needed="a free slot", fix=f"retry in {retry_after_s} s")
        self.retry_after_s = retry_after_s


class Worker:
    """See the module docstring.

    Args:
        engine: From now on used only by this worker's thread.
        slots: Maximum number of running sequences.
        queue: Maximum number of waiting jobs.
        name: The model's name, for logs.
    """

    def __init__(self, engine: Engine, *, slots: int, queue: int, name: str) -> None:
        self.engine, self.name = engine, name
        self._slots, self._queue = slots, queue
        self._waiting: collections.deque[Job] = collections.deque()
        self._running: dict[SequenceState, Job] = {}
        self._changed = threading.Condition()
        self._closing = False
        self._recent_s = 1.0  # how long a job has taken lately
        self._thread = threading.Thread(target=self._work, name=f"worker {name}", daemon=True)
        self._thread.start()

    @property
    def running(self) -> int:
        """Number of running sequences."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """Number of jobs that wait for a slot."""
        return len(self._waiting)

    @property
    def idle(self) -> bool:
        """Whether nothing is running or waiting."""
        return not self._running and not self._waiting

    def submit(self, job: Job) -> None:
        """Queue a job; its deltas are delivered to it.

        Raises:
            Busy: Slots and queue are full.
            Stopped: The worker is closing.
        """
        with self._changed:
            if self._closing:
                raise Stopped("The server is shutting down.")
            if len(self._running) + len(self._waiting) >= self._slots + self._queue:
                self._waiting = collections.deque(waiting for waiting in self._waiting if not waiting.cancelled)
            if len(self._running) + len(self._waiting) >= self._slots + self._queue:
                rounds = (len(self._waiting) + self._slots) / self._slots
                wait = max(1, min(60, round(rounds * self._recent_s)))
                raise Busy(
                    f"{len(self._running)} requests are running and {len(self._waiting)} are waiting.",
                    retry_after_s=wait,
                )
            self._waiting.append(job)
            self._changed.notify()

    def close(self, *, drain_s: float) -> None:
        """Finish running and waiting jobs within `drain_s` seconds; the remaining ones fail with `Stopped`."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(drain_s)
        with self._changed:
            for job in [*self._running.values(), *self._waiting]:
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
                        self._step(batch)
            except Exception as problem:  # after any error the next request gets a new batch
                with self._changed:  # waiting jobs too: if a batch cannot be opened, they would wait forever
                    jobs, self._running = [*self._running.values(), *self._waiting], {}
                    self._waiting.clear()
                logger.exception("The batch of %s failed; %d requests end", self.name, len(jobs))
                for job in jobs:
                    job.fail(problem)

    def _wait_for_work(self, patience_s: float | None) -> bool:
        """Wait until there is work; False if there is none for `patience_s` seconds or the worker is closing."""
        with self._changed:
            while not self._running and not self._waiting:
                if self._closing or not self._changed.wait(patience_s):
                    return False
            return True

    def _step(self, batch: ContinuousBatch) -> None:
        """Drop cancelled jobs, admit waiting ones, and decode one step."""
        now = time.monotonic()
        for sequence, job in list(self._running.items()):
            if job.cancelled or now > job.deadline:
                batch.drop(sequence)
                del self._running[sequence]
                self._end_unfinished(job)
        while batch.has_room and (admitted := self._next_waiting(now)) is not None:
            try:
                sequence = self.engine.new_sequence(admitted.request)
            except Exception as problem:
                admitted.fail(problem)
                continue
            batch.add(sequence)
            admitted.reused_tokens = sequence.reused_tokens
            self._running[sequence] = admitted
        wake = []
        for sequence, delta in batch.step():
            job = self._running[sequence]
            if sequence.error is not None:
                logger.warning("A request to %s failed: %r", self.name, sequence.error)
                job.error = sequence.error
            job.drafted_tokens, job.accepted_tokens = sequence.drafts.drafted, sequence.drafts.accepted
            if job.deliver(delta, n_running=len(self._running)):
                wake.append(job)
            if delta.finish_reason is not None:
                del self._running[sequence]
                self._recent_s += 0.2 * (time.monotonic() - job.submitted_at - self._recent_s)
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
            seconds = time.monotonic() - job.submitted_at
            job.fail(TimedOut(f"The request was ended after {seconds:.0f} s and {job.new_tokens} new tokens."))
