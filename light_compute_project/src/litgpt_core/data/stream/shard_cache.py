"""Token shards at addresses, through a cache on this disk: blocks of 8 MB, the least recently used of which go.

    CACHE_DIR/.remote-blocks/<hash of address, size and ETag>/<number>-<beginning of the SHA-256>.block

A block is a file that exists complete or not at all; its hash is checked when it is opened, and a damaged one is
fetched again. Processes share the folder: one that needs a block waits for another that fetches it. A shard that
changes at its address has another ETag, so its blocks are others. Requests that fail are repeated (`remote`).
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from litgpt_core.core.errors import DataError
from litgpt_core.core.files import write_atomically
from litgpt_core.core.lock import exclusive
from litgpt_core.data.stream import remote

logger = logging.getLogger(__name__)

Raw = npt.NDArray[np.uint8]

CACHE_BYTES = 20_000_000_000
"""Of all blocks together, where nothing else is set."""
_OPEN = 32
"""Blocks that a process keeps mapped."""
_AHEAD = 4
"""Threads that fetch ahead."""
_REMEMBERED = 512
"""Blocks that are not requested ahead again: 4 GB."""


@dataclass(frozen=True, kw_only=True)
class RemotePlace:
    """Where a shard is, and where its blocks are kept."""

    address: str
    bytes: int
    """Of the whole file."""
    stamp: str
    """Changes with its content: an ETag or the like."""
    cache: Path
    cache_bytes: int = CACHE_BYTES

    @property
    def folder(self) -> Path:
        """Of its blocks."""
        key = hashlib.sha256(f"{self.address}\n{self.bytes}\n{self.stamp}".encode()).hexdigest()
        return self.cache / key[:20]


class ShardCache:
    """The blocks of some shards, as arrays; each process has its own of these, and all share the files."""

    def __init__(self) -> None:
        self._mapped: OrderedDict[tuple[str, int], Raw] = OrderedDict()
        self._requested: OrderedDict[tuple[str, int], None] = OrderedDict()
        self._threads: ThreadPoolExecutor | None = None
        self._process = os.getpid()

    def read(self, place: RemotePlace, begin: int, end: int) -> Raw:
        """Bytes [begin, end) of a shard's file, copied.

        Raises:
            DataError: They cannot be fetched.
        """
        out = np.empty(end - begin, dtype=np.uint8)
        filled = 0
        while filled < len(out):
            number, inside = divmod(begin + filled, remote.BLOCK_BYTES)
            part = self._block(place, number)[inside : inside + len(out) - filled]
            out[filled : filled + len(part)] = part
            filled += len(part)
        return out

    def prefetch(self, place: RemotePlace, begin: int, end: int) -> None:
        """Have the blocks of these bytes fetched by other threads, if they are not there."""
        if self._process != os.getpid():  # a fork has none of its parent's threads
            self._threads, self._process = None, os.getpid()
        for number in range(begin // remote.BLOCK_BYTES, -(-end // remote.BLOCK_BYTES)):
            key = (place.address, number)
            if key not in self._requested:
                self._requested[key] = None
                if len(self._requested) > _REMEMBERED:
                    self._requested.popitem(last=False)
                self._threads = self._threads or ThreadPoolExecutor(_AHEAD, thread_name_prefix="shards-ahead")
                self._threads.submit(_fetch_ahead, place, number)

    def _block(self, place: RemotePlace, number: int) -> Raw:
        key = (place.address, number)
        found = self._mapped.get(key)
        if found is None:
            found = self._mapped[key] = _opened(place, number)
            if len(self._mapped) > _OPEN:
                self._mapped.popitem(last=False)
        self._mapped.move_to_end(key)
        return found

    def __getstate__(self) -> dict[str, object]:
        return {}

    def __setstate__(self, state: dict[str, object]) -> None:
        ShardCache.__init__(self)


def _fetch_ahead(place: RemotePlace, number: int) -> None:
    try:
        stored_block(place, number)
    except (DataError, OSError) as error:
        logger.info("data: a block was not fetched ahead, and is fetched when it is needed: %s", error)


def stored_block(place: RemotePlace, number: int) -> Path:
    """The file of a block, fetched if it is not there.

    Raises:
        DataError: It cannot be fetched.
        OSError: It cannot be written.
    """
    found = _stored(place, number)
    if found is not None:
        return found
    place.folder.mkdir(parents=True, exist_ok=True)
    with exclusive(place.folder / f".{number}.lock", purpose=f"block {number} of {place.address}"):
        found = _stored(place, number)
        if found is None:
            begin = number * remote.BLOCK_BYTES
            raw = remote.fetch_range(place.address, begin=begin, end=min(begin + remote.BLOCK_BYTES, place.bytes))
            found = place.folder / f"{number}-{hashlib.sha256(raw).hexdigest()[:16]}.block"
            write_atomically(found, raw)
            evict(place.cache, place.cache_bytes, keep=found)
    return found


def evict(cache: Path, at_most: int, *, keep: Path) -> None:
    """Remove the blocks that were not used for longest, until the others together have at most so many bytes."""
    blocks = []
    for path in cache.glob("*/*.block"):
        with contextlib.suppress(OSError):  # another process was quicker
            found = path.stat()
            blocks.append((found.st_mtime_ns, found.st_size, path))
    total = sum(size for _, size, _ in blocks)
    for _, size, path in sorted(blocks):
        if total <= at_most:
            return
        if path != keep:
            path.unlink(missing_ok=True)
            total -= size


def _stored(place: RemotePlace, number: int) -> Path | None:
    return next(place.folder.glob(f"{number}-*.block"), None)


def _opened(place: RemotePlace, number: int) -> Raw:
    for _ in range(3):
        path = stored_block(place, number)
        try:
            raw = np.memmap(path, dtype=np.uint8, mode="r").view(np.ndarray)
            os.utime(path)
        except (OSError, ValueError):  # evicted since, or empty
            path.unlink(missing_ok=True)
            continue
        if hashlib.sha256(raw.data).hexdigest()[:16] == path.stem.partition("-")[2]:
            return raw
        logger.warning("data: %s is damaged, and is fetched again", path)
        path.unlink(missing_ok=True)
    raise DataError(
        f"blocks of {place.address} in {place.cache} are damaged or removed again and again",
        needed="a disk that keeps what is written, and room for a few hundred MB",
        fix="a larger data.cache_bytes, or data.cache_dir=/another/disk",
    )
