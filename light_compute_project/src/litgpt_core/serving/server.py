"""Starts the application, logs its address, and stops it cleanly. Entry point of `scripts/serve.py`."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import socket
import sys
from typing import TYPE_CHECKING

import uvicorn

from litgpt_core.core.console import log_to_file
from litgpt_core.core.errors import EnvironmentProblem
from litgpt_core.serving.app import create_app
from litgpt_core.serving.connections import BACKLOG, MAX_HEADER_BYTES, Seldom, limited_protocol, max_connections
from litgpt_core.serving.models import ModelPool

if TYPE_CHECKING:
    from litgpt_core.serving.settings import ServerSettings

logger = logging.getLogger(__name__)

SWITCH_S = 0.0005
"""Seconds for which a thread keeps Python's lock while others wait for it (CPython: 0.005). The worker takes it between
two steps of a few milliseconds, and would wait for every prompt that is being prepared."""


def serve(settings: ServerSettings, *, model: str | None = None) -> None:
    """Serve until SIGINT or SIGTERM; running requests then get `settings.drain_s` seconds to finish.

    Args:
        settings: Address, limits, defaults.
        model: Name or path of the default model; None: the most recent checkpoint found.

    Raises:
        CheckpointError: There is no such model, or it cannot be loaded.
        DataError: The chat log cannot be written.
        EnvironmentProblem: The port is taken.
    """
    _quiet_third_parties()
    with contextlib.ExitStack() as stack:
        if settings.log_file is not None:
            stack.enter_context(log_to_file(settings.log_file, loggers=("litgpt_core", "uvicorn.error"), private=True))
        listening = stack.enter_context(contextlib.closing(_listen(settings)))
        pool = ModelPool(settings, model=model)
        pool.load_default()  # before accepting requests, so that errors are reported at the start
        app = create_app(settings, pool)
        config = uvicorn.Config(
            app,
            http=limited_protocol(max_connections()),
            ws="none",
            backlog=BACKLOG,
            h11_max_incomplete_event_size=MAX_HEADER_BYTES,
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=round(settings.drain_s) + 3,  # the workers end all requests before that
            server_header=False,
            lifespan="on",
        )
        server = _Announcing(config, settings=settings, port=listening.getsockname()[1], pool=pool)
        gc.collect()
        gc.freeze()  # exclude everything loaded so far from garbage collection
        sys.setswitchinterval(SWITCH_S)
        server.run(sockets=[listening])


class _Announcing(uvicorn.Server):
    """Logs its address after the start; at shutdown drains the workers while connections are still served."""

    def __init__(self, config: uvicorn.Config, *, settings: ServerSettings, port: int, pool: ModelPool) -> None:
        super().__init__(config)
        self._settings, self._port, self._pool = settings, port, pool

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            host = f"[{self._settings.host}]" if ":" in self._settings.host else self._settings.host
            logger.info("%s answers at http://%s:%d (Ctrl-C stops it)", self._pool.default, host, self._port)
            if not self._settings.is_private and self._settings.api_key is None:
                logger.warning("no API key: anybody who can reach %s can use this server", host)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        draining = asyncio.ensure_future(asyncio.to_thread(self._pool.close))
        await super().shutdown(sockets)
        await draining


def _listen(settings: ServerSettings) -> socket.socket:
    """A socket, bound before the model is loaded, so that a port in use is reported at once."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listening = socket.socket(family)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((settings.host, settings.port))
        listening.listen(BACKLOG)
    except OSError as problem:
        listening.close()
        raise EnvironmentProblem(
            f"{settings.host}:{settings.port} cannot be listened on: {problem.strerror or problem}.",
            needed="a free port, and an address of this machine",
            fix=f"--port {settings.port + 1}, or --port 0 for any free port",
        ) from None
    return listening


def _quiet_third_parties() -> None:
    for name in ("uvicorn", "uvicorn.error", "fastapi", "asyncio", "httpx"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for name in ("uvicorn.error", "asyncio"):
        if not any(isinstance(each, Seldom) for each in logging.getLogger(name).filters):
            logging.getLogger(name).addFilter(Seldom())
