"""Idle, slow and too many connections are closed; a running uvicorn in this process, with short limits."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Awaitable, Callable

import pytest
import uvicorn

from litgpt_core.serving import connections, guard
from litgpt_core.serving.connections import Seldom, limited_protocol, max_connections
from litgpt_core.serving.guard import Guard
from litgpt_core.serving.settings import ServerSettings

GET = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n"


async def _app(scope, receive, send):
    """Reads the body and answers; /large answers 20 MB."""
    while (await receive()).get("more_body"):
        pass
    body = b"x" * (20_000_000 if scope["path"] == "/large" else 2)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


def serving(test: Callable[[int], Awaitable[None]], *, most: int = 50) -> None:
    """Run a test against a server."""

    async def run() -> None:
        app = Guard(_errors(_app), settings=ServerSettings(chat_log=None, log_file=None))
        config = uvicorn.Config(app, http=limited_protocol(most), log_config=None, lifespan="off", ws="none")
        server = uvicorn.Server(config)
        with socket.socket() as listening:
            listening.bind(("127.0.0.1", 0))
            task = asyncio.ensure_future(server._serve(sockets=[listening]))
            while not server.started:
                await asyncio.sleep(0.01)
            try:
                await asyncio.wait_for(test(listening.getsockname()[1]), 20)
            finally:
                server.should_exit = server.force_exit = True
                await task

    asyncio.run(run())


def _errors(app):
    from starlette.middleware.exceptions import ExceptionMiddleware

    return ExceptionMiddleware(app)


async def status_of(reader: asyncio.StreamReader) -> int | None:
    """The status of the response; None for a connection that was closed without one."""
    try:
        line = await reader.readline()
    except ConnectionError:
        return None
    return int(line.split()[1]) if line else None


@pytest.mark.parametrize("begin", [b"", b"GET / HT", GET + GET[:10]])
def test_a_client_that_sends_no_complete_request_is_closed(monkeypatch, begin):
    monkeypatch.setattr(connections, "HEADERS_S", 0.2)

    async def test(port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(begin)
        left = await asyncio.wait_for(reader.read(), 5)
        assert left.count(b"200 OK") == begin.count(b"\r\n\r\n")
        writer.close()

    serving(test)


def test_a_slow_body_is_a_408(monkeypatch):
    monkeypatch.setattr(guard, "BODY_S", 0.2)

    async def test(port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(POST + b"{")
        assert await asyncio.wait_for(status_of(reader), 5) == 408
        writer.close()

    serving(test)


def test_a_client_that_does_not_read_is_closed(monkeypatch):
    monkeypatch.setattr(connections, "READ_S", 0.2)

    async def test(port: int) -> None:
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(GET.replace(b"GET /", b"GET /large"))
            await asyncio.sleep(0.6)
            client.setblocking(False)
            received, loop = 0, asyncio.get_running_loop()
            with contextlib.suppress(ConnectionError):
                while data := await loop.sock_recv(client, 1_000_000):
                    received += len(data)
            assert received < 20_000_000, "what the system had buffered, and no more"

    serving(test)


def test_above_the_limit_the_connection_that_waited_longest_is_closed():
    async def test(port: int) -> None:
        held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(60)]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(GET)
        assert await status_of(reader) == 200, "idle connections do not keep others out"
        await asyncio.sleep(0.1)
        closed = [
            place for place, (held_reader, _) in enumerate(held) if held_reader.at_eof() or held_reader.exception()
        ]
        assert closed == list(range(11))
        for _, each in [*held, (reader, writer)]:
            each.close()

    serving(test, most=50)


def test_the_limit_leaves_descriptors_for_files():
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert 8 <= max_connections() <= 4096
    assert max_connections() <= resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 100
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_messages_that_repeat_are_logged_once_with_their_number():
    def record(level: int = logging.ERROR) -> logging.LogRecord:
        return logging.LogRecord("asyncio", level, "", 0, "socket.accept() failed", (), None)

    seldom = Seldom(every_s=1000)
    assert [seldom.filter(record()) for _ in range(100)] == [True] + [False] * 99
    assert seldom.filter(record(logging.INFO))
    seldom._every_s = 0
    last = record()
    assert seldom.filter(last) and last.getMessage() == "socket.accept() failed (and 99 times before)"
