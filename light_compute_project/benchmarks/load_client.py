"""A client that keeps many streams of a server busy and records what arrived when.

Plain sockets: the client shares the machine with the server, and an HTTP library would cost more CPU time.
"""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass, field

from litgpt_core.core.errors import EnvironmentProblem


@dataclass(kw_only=True)
class StreamedAnswer:
    """One request; times are those of time.perf_counter."""

    sent: float
    first: float = 0.0
    """When the first text arrived."""
    ended: float = 0.0
    """When the last text arrived."""
    tokens: int = 0
    gaps: list[float] = field(default_factory=list)
    """Seconds between two chunks of text."""


async def request(port: int, body: dict[str, object]) -> StreamedAnswer:
    """Send one streamed completion and read it to its end.

    Raises:
        EnvironmentProblem: The server refused it, or ended the stream with an error.
    """
    content = json.dumps(body | {"stream": True, "stream_options": {"include_usage": True}}).encode()
    lines = ("POST /v1/completions HTTP/1.1", "Host: 127.0.0.1", "Content-Type: application/json", "Connection: close")
    head = "\r\n".join((*lines, f"Content-Length: {len(content)}", "", "")).encode()
    answer = StreamedAnswer(sent=time.perf_counter())
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(head + content)
        status = await reader.readline()
        if b" 200 " not in status:
            raise EnvironmentProblem(f"The server answered {status.decode(errors='replace').strip()!r}.")
        async for line in reader:
            if not line.startswith(b"data: ") or line.startswith(b"data: [DONE]"):
                continue
            now = time.perf_counter()
            if b'"error":' in line:
                raise EnvironmentProblem(f"The server ended a stream: {line.decode(errors='replace').strip()}")
            if b'"usage":' in line:
                answer.tokens = json.loads(line[6:])["usage"]["completion_tokens"]
                continue
            if not answer.first:
                answer.first = now
            else:
                answer.gaps.append(now - answer.ended)
            answer.ended = now
    finally:
        writer.close()
    if not answer.tokens:
        raise EnvironmentProblem("The server closed a stream before its end.")
    return answer


async def load(port: int, bodies: list[list[dict[str, object]]]) -> list[StreamedAnswer]:
    """Run all streams at once; each sends its requests one after the other."""

    async def one_stream(requests: list[dict[str, object]]) -> list[StreamedAnswer]:
        return [await request(port, body) for body in requests]

    return [answer for stream in await asyncio.gather(*map(one_stream, bodies)) for answer in stream]
