"""A client that keeps many streams of a server busy and notes when what came. Plain sockets, because the client shares
the machine with the server and must not cost much.
"""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass, field

from litgpt_core.core.errors import EnvironmentProblem


@dataclass(kw_only=True)
class Answered:
    """One request, on the clock of time.perf_counter."""

    asked: float
    first: float = 0.0
    """When the first text came."""
    ended: float = 0.0
    tokens: int = 0
    gaps: list[float] = field(default_factory=list)
    """Seconds between two pieces of text."""


async def ask(port: int, body: dict[str, object]) -> Answered:
    """One streamed completion.

    Raises:
        EnvironmentProblem: The server refused, or ended the stream with an error.
    """
    content = json.dumps(body | {"stream": True, "stream_options": {"include_usage": True}}).encode()
    lines = ("POST /v1/completions HTTP/1.1", "Host: 127.0.0.1", "Content-Type: application/json", "Connection: close")
    head = "\r\n".join((*lines, f"Content-Length: {len(content)}", "", "")).encode()
    answered = Answered(asked=time.perf_counter())
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(head + content)
        status = await reader.readline()
        if b" 200 " not in status:
            raise EnvironmentProblem(f"The server answered {status.decode(errors='replace').strip()!r}.")
        last = 0.0
        async for line in reader:
            if not line.startswith(b"data: ") or line.startswith(b"data: [DONE]"):
                continue
            now = time.perf_counter()
            if b'"error":' in line:
                raise EnvironmentProblem(f"The server ended a stream: {line.decode(errors='replace').strip()}")
            if b'"usage":' in line:
                answered.tokens = json.loads(line[6:])["usage"]["completion_tokens"]
                continue
            if not answered.first:
                answered.first = now
            else:
                answered.gaps.append(now - last)
            last = answered.ended = now
    finally:
        writer.close()
    if not answered.tokens:
        raise EnvironmentProblem("The server closed a stream before its end.")
    return answered


async def load(port: int, bodies: list[list[dict[str, object]]]) -> list[Answered]:
    """All streams at once; each sends its requests one after the other."""

    async def one_stream(its_bodies: list[dict[str, object]]) -> list[Answered]:
        return [await ask(port, body) for body in its_bodies]

    return [answered for one in await asyncio.gather(*map(one_stream, bodies)) for answered in one]
