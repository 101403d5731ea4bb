"""Limits on connections: how many, and how long a client may take to send a request or to read a response.

    connected --HEADERS_S--> headers complete --> body (`guard` limits it) --> response --KEEP_ALIVE--> next request
        '-- more connections than `max_connections()`: the one that has waited longest for a request is closed

A client that does not read its response for `READ_S` seconds is disconnected. Without these limits a few hundred idle
clients use up the descriptors of the process; then nobody can connect.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import time
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

logger = logging.getLogger(__name__)

HEADERS_S = 15.0
"""Seconds from the connection, or from the end of the last response, to the end of a request's headers."""
READ_S = 60.0
"""Seconds for which a client may leave sent data unread."""
MAX_HEADER_BYTES = 32_768
BACKLOG = 256
"""Connections that the operating system holds until they are accepted."""
_MOST = 4096
_RESERVED = 128
"""Descriptors kept for files: the chat log, models, libraries."""


class LimitedProtocol(H11Protocol):
    """uvicorn's HTTP protocol with the limits of the module docstring. Used in one event loop."""

    most = _MOST
    """Most connections of all instances of a class."""
    waiting: dict[LimitedProtocol, None] = {}  # noqa: RUF012  # a new one for each server: `limited_protocol`
    """Connections whose next request is not complete, in the order of their age."""

    def __init__(self, *args: Any, **words: Any) -> None:
        super().__init__(*args, **words)
        self._timer: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Accept; above the limit, close the connection that has waited longest, else this one."""
        super().connection_made(transport)
        if len(self.connections) > self.most:
            oldest = next(iter(self.waiting), self)
            oldest._abort()
            if oldest is self:
                return
        self._await_request()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the timers."""
        self._stop_waiting()
        self._set_unread(None)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read; the request is complete enough for an answer once a cycle runs."""
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_waiting()

    def on_response_complete(self) -> None:
        """The next request must come in time."""
        super().on_response_complete()
        if self.cycle is not None and self.cycle.response_complete and not self.transport.is_closing():
            self._await_request()

    def pause_writing(self) -> None:
        """The client does not read fast enough."""
        super().pause_writing()
        self._set_unread(self.loop.call_later(READ_S, self._abort))

    def resume_writing(self) -> None:
        """It reads again."""
        super().resume_writing()
        self._set_unread(None)

    def _await_request(self) -> None:
        self._stop_waiting()
        self.waiting[self] = None
        self._timer = self.loop.call_later(HEADERS_S, self._abort)

    def _stop_waiting(self) -> None:
        self.waiting.pop(self, None)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set_unread(self, timer: asyncio.TimerHandle | None) -> None:
        if self._unread is not None:
            self._unread.cancel()
        self._unread = timer

    def _abort(self) -> None:
        self._stop_waiting()
        self.transport.abort()


def limited_protocol(most: int) -> type[LimitedProtocol]:
    """A protocol class for one server with at most that many connections."""
    return type("LimitedProtocol", (LimitedProtocol,), {"most": most, "waiting": {}})


def max_connections() -> int:
    """How many connections the descriptors allow, after raising their limit as far as the system lets this process."""
    if sys.platform == "win32":
        return _MOST
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = 65_536 if hard == resource.RLIM_INFINITY else min(hard, 65_536)
    if soft != resource.RLIM_INFINITY and soft < most:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MOST if soft == resource.RLIM_INFINITY else max(8, min(_MOST, soft - _RESERVED))


class Seldom(logging.Filter):
    """Lets each message of a library through once in `every_s` seconds, with the number of those left out.

    asyncio reports every connection that it cannot accept, and uvicorn every request that is not HTTP: without this,
    clients fill the log.
    """

    def __init__(self, *, every_s: float = 10.0) -> None:
        super().__init__()
        self._every_s = every_s
        self._latest: dict[str, tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to log; changes the text if similar ones were left out."""
        if record.levelno < logging.WARNING:
            return True
        key, now = str(record.msg)[:200], time.monotonic()
        at, left_out = self._latest.get(key, (float("-inf"), 0))
        if now - at < self._every_s:
            self._latest[key] = (at, left_out + 1)
            return False
        if len(self._latest) > 1000:
            self._latest.clear()
        self._latest[key] = (now, 0)
        if left_out:
            record.msg, record.args = f"{record.getMessage()} (and {left_out:,} times before)", ()
        return True
