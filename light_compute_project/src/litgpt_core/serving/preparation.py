"""Turns requests into prompts outside the event loop: templates and tokenizers take milliseconds to seconds.

Two small pools, so that conversations of a hundred thousand characters do not delay short ones. Waiting requests are
bounded, and the request's own time limit counts.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from litgpt_core.serving.job import TimedOut
from litgpt_core.serving.worker import Busy

T = TypeVar("T")

SHORT_CHARS = 8_000
"""Prompts up to this length share a pool of their own."""


class Preparation:
    """See the module docstring. Used in one event loop.

    Args:
        most_waiting: Requests in preparation at a time; further ones are refused.
    """

    def __init__(self, *, most_waiting: int) -> None:
        self._most_waiting, self._waiting = most_waiting, 0
        self._short = ThreadPoolExecutor(max_workers=2, thread_name_prefix="short prompts")
        self._long = ThreadPoolExecutor(max_workers=1, thread_name_prefix="long prompts")

    async def run(self, work: Callable[[], T], *, chars: int, deadline: float) -> T:
        """The result of `work`, computed in a pool.

        Args:
            work: Formats and encodes one request.
            chars: Size of its prompt.
            deadline: In seconds of time.monotonic.

        Raises:
            Busy: Too many requests are being prepared.
            TimedOut: The deadline has passed. What runs then ends in its thread, within the limits of its parts.
        """
        if self._waiting >= self._most_waiting:
            raise Busy(f"{self._waiting} prompts are being prepared.", retry_after_s=2)
        self._waiting += 1
        pool = self._short if chars <= SHORT_CHARS else self._long
        future = asyncio.get_running_loop().run_in_executor(pool, work)
        try:
            return await asyncio.wait_for(future, max(0.0, deadline - time.monotonic()))
        except TimeoutError:
            raise TimedOut("The request was ended while its prompt was prepared.") from None
        finally:
            self._waiting -= 1

    def close(self) -> None:
        """Start no more work."""
        for pool in (self._short, self._long):
            pool.shutdown(wait=False, cancel_futures=True)
