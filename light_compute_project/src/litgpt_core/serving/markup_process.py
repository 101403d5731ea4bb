"""Colours and formulas for the page, from a child process with limits of time and memory; see `markup_child`."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from litgpt_core.core.errors import LightComputeError
from litgpt_core.core.line_child import LineChild
from litgpt_core.serving.worker import Busy

SECONDS = 2.0
"""Longest time for one request; 1,000 lines of Python take about 30 ms."""
START_SECONDS = 20.0
MOST_WAITING = 8
"""Requests at the same time; further ones get status 429."""
_SCRIPT = Path(__file__).with_name("markup_child.py")


class TooSlow(LightComputeError):
    """Code or a formula took too long."""


class MarkupProcess:
    """One child, started at the first request and ended with the server."""

    def __init__(self) -> None:
        self._child: LineChild | None = None
        self._asking = ThreadPoolExecutor(max_workers=1, thread_name_prefix="colours")
        self._waiting = 0

    async def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """The child's answer.

        Raises:
            Busy: Too many requests wait.
            TooSlow: It took longer than `SECONDS`, or the child ended.
        """
        if self._waiting >= MOST_WAITING:
            raise Busy(f"{self._waiting} requests for colours are waiting.", retry_after_s=2)
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._asking, self._ask, request)
        finally:
            self._waiting -= 1

    def _ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        if self._child is None or not self._child.is_running:
            self._child = _started()
        found: dict[str, Any] | None = self._child.ask(request, seconds=SECONDS)
        if found is None:
            self._end()
            raise TooSlow(f"Colouring this code takes longer than {SECONDS:g} s.")
        return found

    def close(self) -> None:
        """End the child; a request that is being answered fails."""
        self._asking.shutdown(wait=False, cancel_futures=True)
        self._end()

    def _end(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            child.end()


def _started() -> LineChild:
    child = LineChild(_SCRIPT)
    child.ask({"code": [], "formulas": []}, seconds=START_SECONDS)
    return child
