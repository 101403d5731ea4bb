"""Whether fine-tuning on the chat log would start, by the count that training itself makes (`data.conversations`)."""

from __future__ import annotations

import asyncio
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from litgpt_core.core.errors import LightComputeError
from litgpt_core.data.chat_prepare import MIN_CONVERSATIONS
from litgpt_core.data.conversations import read_conversations
from litgpt_core.data.settings import ChatDataSettings

logger = logging.getLogger(__name__)

RECOUNT_READY_S = 60.0
"""Seconds for which a log that is ready is not counted again."""
_REST = 20
"""Counting takes at most one part in so many of a thread's time, unless that would be a minute."""


class Readiness:
    """Counts in a thread of its own, when the log has changed. Used in one event loop.

    Args:
        log: The chat log; None: there is none.
    """

    def __init__(self, log: Path | None) -> None:
        self._log = log
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="counting")
        self._counting: asyncio.Future[int] | None = None
        self._count, self._size, self._next_at = 0, -1, 0.0

    async def is_ready(self) -> bool:
        """Whether there are enough conversations to train on."""
        if self._log is None:
            return False
        if self._counting is None and time.monotonic() >= self._next_at and self._log_size() != self._size:
            self._counting = asyncio.get_running_loop().run_in_executor(self._thread, self._recount)
        if self._counting is not None:
            counting = self._counting
            self._count = await asyncio.shield(counting)
            if self._counting is counting:
                self._counting = None
        return self._count >= MIN_CONVERSATIONS

    def _log_size(self) -> int:
        """Changes with every appended line."""
        assert self._log is not None
        try:
            return self._log.stat().st_size
        except OSError:
            return -1

    def _recount(self) -> int:
        start, size = time.monotonic(), self._log_size()
        try:
            kept, _ = read_conversations(ChatDataSettings(path=str(self._log)))
            count = len(kept)
        except LightComputeError:
            count = 0
        except Exception as problem:  # whatever somebody has written into the log
            logger.warning("The chat log cannot be counted: %r", problem)
            count = 0
        took = time.monotonic() - start
        rest = RECOUNT_READY_S if count >= MIN_CONVERSATIONS else 0.0
        self._size, self._next_at = size, time.monotonic() + max(rest, min(_REST * took, RECOUNT_READY_S))
        return count

    def close(self) -> None:
        """Start no more counts."""
        self._thread.shutdown(wait=False, cancel_futures=True)
