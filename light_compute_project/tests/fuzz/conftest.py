"""Mutated files for the readers: a small corpus made here, and a loop that looks for anything but a clear error.

`LIGHT_COMPUTE_FUZZ_SECONDS` is the time of each target (2 s; the nightly workflow gives all of them an hour together),
`LIGHT_COMPUTE_FUZZ_SEED` the first seed (0). A failure names the seed of its input and keeps the input: run the target
again with that seed.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import resource
import shutil
import signal
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

SECONDS = float(os.environ.get("LIGHT_COMPUTE_FUZZ_SECONDS", "2"))
SEED = int(os.environ.get("LIGHT_COMPUTE_FUZZ_SEED", "0"))
SLOWEST_S = 10.0
"""Of one input, on a machine that is busy with other tests; an idle one needs less than a second."""
MOST_MEMORY = 600_000_000
"""By which one target may raise the peak memory of the process, in bytes: libraries that it imports included."""

TOKENS = [
    *(
        b"\x00",
        b"\xff",
        b"{",
        b"}",
        b"[",
        b"]",
        b'"',
        b":",
        b",",
        b"\n",
        b"-",
        b"&a ",
        b"*a",
        b"!!python/name:os.system ",
    ),
    *(
        b"0",
        b"-1",
        b"1e999",
        b"NaN",
        b"Infinity",
        b"9" * 30,
        b"null",
        b"true",
        b"{}",
        b"[]",
        b'""',
        b"../../x",
        b"<<: ",
    ),
    *(b"{{", b"}}", b"{%", b"%}", b"| length", b"range(100000)", b".__class__", b"[" * 200, b'{"a":' * 200),
    *(struct.pack("<I", n) for n in (0, 1, 0x7FFFFFFF, 0xFFFFFFFF)),
    *(struct.pack("<Q", n) for n in (2**31, 2**62, 2**64 - 1)),
    *(b"c__builtin__\neval\n", b"cos\nsystem\n", b"R", b"\x85", b"\x86", b"h\x00", b"q\x00", b"t", b"(", b"."),
]
VALUES: list[Any] = [
    *(
        None,
        True,
        False,
        0,
        -1,
        1,
        0.5,
        -0.0,
        1e308,
        2**31,
        2**63,
        10**30,
        float("inf"),
        float("nan"),
        "",
        "a",
        "x" * 3000,
    ),
    *("../../etc/passwd", "\x00", "\ud800", "1e3", [], {}, [[]], [None], {"a": 1}, [1, 2, 3], ["a"], {"": ""}),
]


def mutate_bytes(data: bytes, chance: random.Random) -> bytes:
    """`data` after one to eight small changes."""
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 4, 8))):
        at, length = chance.randrange(len(changed) + 1), chance.choice((1, 1, 2, 4, 8, 64, 1024))
        kind = chance.randrange(7)
        if kind == 0 and at < len(changed):
            changed[at] ^= 1 << chance.randrange(8)
        elif kind == 1 and at < len(changed):
            changed[at] = chance.randrange(256)
        elif kind == 2:
            del changed[at : at + length]
        elif kind == 3:
            changed[at:at] = changed[at : at + length] * chance.choice((1, 2, 20))
        elif kind == 4:
            changed[at:at] = chance.choice(TOKENS)
        elif kind == 5:
            token = chance.choice(TOKENS)
            changed[at : at + len(token)] = token
        elif chance.random() < 0.3:
            del changed[at:]
    return bytes(changed)


def mutate_json(data: bytes, chance: random.Random) -> bytes:
    """A JSON text with one to three of its values, keys or lists changed."""
    content = json.loads(data)
    for _ in range(chance.choice((1, 1, 2, 3))):
        places = list(_places(content))
        if not places:
            break
        parent, key = chance.choice(places)
        kind = chance.randrange(5)
        if kind == 0:
            del parent[key]
        elif kind == 1 and isinstance(parent, list):
            parent.extend([parent[key]] * chance.choice((1, 50)))
        elif kind == 1:
            parent[str(chance.choice(VALUES))] = parent[key]
        else:
            parent[key] = chance.choice(VALUES)
    return json.dumps(content).encode("utf-8", errors="replace")


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in list(items):
        yield value, key
        yield from _places(each)


def mutate(data: bytes, chance: random.Random, *, name: str) -> bytes:
    """A change that fits the file: half of the JSON files keep their syntax."""
    if name.endswith((".json", ".jsonl")) and chance.random() < 0.6:
        with contextlib.suppress(ValueError, RecursionError):
            return mutate_json(data, chance)
    return mutate_bytes(data, chance)


@contextlib.contextmanager
def _at_most(seconds: float) -> Iterator[None]:
    def ring(number: int, frame: object) -> None:
        raise TimeoutError(f"one input took more than {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


Fuzz = Callable[[Path, Callable[[Path], object]], int]


@pytest.fixture
def fuzz(tmp_path: Path) -> Fuzz:
    """`fuzz(corpus folder, read)`: mutate one file of a copy of the folder, read, again and again; number of inputs."""
    from litgpt_core.core.errors import LightComputeError

    def run(corpus: Path, read: Callable[[Path], object]) -> int:
        names = sorted(file.relative_to(corpus).as_posix() for file in corpus.rglob("*") if file.is_file())
        folder = tmp_path / "input"
        shutil.copytree(corpus, folder)
        read(folder)  # the corpus itself is fine
        memory, end, seed = _peak(), time.monotonic() + SECONDS, SEED
        while time.monotonic() < end:
            chance = random.Random(seed)
            name = chance.choice(names)
            original = (corpus / name).read_bytes()
            (folder / name).write_bytes(mutate(original, chance, name=name))
            try:
                with _at_most(SLOWEST_S):
                    read(folder)
            except LightComputeError as problem:
                assert len(str(problem)) < 5_000, f"seed {seed}, {name}: a message of {len(str(problem)):,} characters"
            except Exception as problem:
                raise AssertionError(f"seed {seed}: {folder / name}: {type(problem).__name__}: {problem}") from problem
            (folder / name).write_bytes(original)
            seed += 1
            assert _peak() - memory < MOST_MEMORY, f"seed {seed - 1}, {name}: memory grew by {_peak() - memory:,} bytes"
        return seed - SEED

    return run


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
