"""Idle, slow and oversized clients cost the good ones no error and at most twice their latency. Over loopback.

The quick variant has a tenth of each, and a model of two layers; `-m nightly` the full numbers: 1,000 idle and 100 slow
connections, 50 oversized conversations, 32 good streams, from a model of the size of `lcp benchmark serve`. With two
layers all 32 streams take a third of a second, and what is measured is Python's work for the others.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.integration.serving.served import Served, save_talker

TOKENS = 400
LIMIT = 2.0
"""Times the latency without the others."""
SIZES = {"2 layers": {}, "10.7M": {"n_layer": 6, "n_head": 6, "n_embd": 384}}


@pytest.fixture
def crowded(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Served]:
    save_talker(tmp_path, block_size=2048, **SIZES[request.param])
    running = Served(tmp_path, "--slots", "64", "--queue", "200")
    yield running
    running.stop()


def request(path: str, body: object) -> bytes:
    raw = json.dumps(body).encode()
    lines = (f"POST {path} HTTP/1.1", "Host: 127.0.0.1", "Content-Type: application/json", "Connection: close")
    return "\r\n".join((*lines, f"Content-Length: {len(raw)}", "", "")).encode() + raw


GOOD = {
    "messages": [{"role": "user", "content": "Hello"}],
    "max_tokens": TOKENS,
    "ignore_eos": True,
    "stream": True,
}


async def good(port: int, seed: int) -> float:
    """Seconds of one complete stream."""
    start = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request("/v1/chat/completions", GOOD | {"seed": seed}))
    answer = await reader.read()
    writer.close()
    assert b" 200 OK" in answer[:20] and b'"finish_reason":"' in answer and b'"error"' not in answer, answer[:300]
    assert answer.rstrip().endswith(b"0") and b"data: [DONE]" in answer
    return time.perf_counter() - start


async def streams(port: int, n: int) -> list[float]:
    return list(await asyncio.gather(*(good(port, seed) for seed in range(n))))


async def idle(port: int, stop: asyncio.Event) -> None:
    """A connection that says nothing; opened again when it is closed."""
    while not stop.is_set():
        with contextlib.suppress(OSError):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            closed, stopped = asyncio.ensure_future(reader.read()), asyncio.ensure_future(stop.wait())
            await asyncio.wait({closed, stopped}, return_when=asyncio.FIRST_COMPLETED)
            for each in (closed, stopped):
                each.cancel()
            writer.close()


async def slow(port: int, stop: asyncio.Event, *, in_body: bool) -> None:
    """A request that is sent one byte at a time."""
    data = request("/v1/chat/completions", GOOD)
    while not stop.is_set():
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            head = data.index(b"\r\n\r\n") + 4 if in_body else 0
            writer.write(data[:head])
            for place in range(head, len(data) - 1):
                if stop.is_set() or writer.is_closing():
                    break
                writer.write(data[place : place + 1])
                await writer.drain()
                await asyncio.sleep(0.25)
            writer.close()


def oversized(number: int) -> bytes:
    """By turns: above every limit, and the largest that is allowed, which is prepared and answered."""
    n, text = ((15_000, "x" * 20), (1_999, "y" * 45))[number % 2]
    messages = [{"role": ("user", "assistant")[i % 2], "content": text} for i in range(n)]
    messages.append({"role": "user", "content": "?"})
    return request("/v1/chat/completions", {"messages": messages, "max_tokens": 1})


async def send_oversized(port: int, data: bytes) -> int:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    with contextlib.suppress(ConnectionError):  # refused before all of it was sent
        writer.write(data)
        await writer.drain()
    status = int((await reader.readline()).split()[1])
    writer.close()
    return status


async def _load(port: int, *, n_idle: int, n_slow: int, n_oversized: int, n_good: int) -> dict[str, float]:
    bodies = [oversized(number) for number in range(n_oversized)]
    await streams(port, n_good)  # warm
    alone = [await streams(port, n_good) for _ in range(3)]
    stop = asyncio.Event()
    others = [asyncio.ensure_future(idle(port, stop)) for _ in range(n_idle)]
    others += [asyncio.ensure_future(slow(port, stop, in_body=bool(i % 2))) for i in range(n_slow)]
    await asyncio.sleep(1)
    statuses = [asyncio.ensure_future(send_oversized(port, body)) for body in bodies]
    beside = [await streams(port, n_good) for _ in range(3)]
    found = await asyncio.wait_for(asyncio.gather(*statuses), 150)
    stop.set()
    await asyncio.gather(*others)
    assert {status for number, status in enumerate(found) if number % 2 == 0} <= {400, 413}
    assert {status for number, status in enumerate(found) if number % 2} <= {200}
    return {
        "slowest alone": max(max(times) for times in alone),
        "slowest beside": max(max(times) for times in beside),
        "mean alone": statistics.mean(map(statistics.mean, alone)),
        "mean beside": statistics.mean(map(statistics.mean, beside)),
    }


def check(server: Served, **numbers: int) -> dict[str, float]:
    measured = asyncio.run(_load(server.port, **numbers))
    print(numbers, {name: round(seconds, 3) for name, seconds in measured.items()})
    assert measured["mean beside"] <= LIMIT * measured["mean alone"], measured
    console = server.log.read_text()
    assert "Traceback" not in console and len(console) < 20_000, console[-3000:]
    return measured


@pytest.mark.serial
@pytest.mark.parametrize("crowded", ["2 layers"], indirect=True)
def test_a_few_idle_slow_and_oversized_clients(crowded: Served) -> None:
    check(crowded, n_idle=100, n_slow=10, n_oversized=5, n_good=8)


@pytest.mark.serial
@pytest.mark.nightly
@pytest.mark.parametrize("crowded", ["10.7M"], indirect=True)
def test_many_idle_slow_and_oversized_clients(crowded: Served) -> None:
    measured = check(crowded, n_idle=1000, n_slow=100, n_oversized=50, n_good=32)
    assert measured["slowest beside"] <= LIMIT * measured["slowest alone"], measured
