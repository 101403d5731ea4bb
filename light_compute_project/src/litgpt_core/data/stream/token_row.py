"""Many shards as one row of tokens: any span, any windows; a window may begin in one shard and end in the next.

    shard 0  |0 ...... 99|                  tokens of the row:  0 ................................ 279
    shard 1              |100 ..... 199|    windows of a step:         |--------|      |--------|
    shard 2                         |200 .. 279|                          crosses a cut, as if there were none

So the order of training does not depend on how tokens are cut into shards. Not here: which windows (`dataset`), which
shards (`manifest`), shards at addresses (`shard_cache`). No torch.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from litgpt_core.core.errors import DataError
from litgpt_core.data.order import Ints
from litgpt_core.data.stream.manifest import Shard
from litgpt_core.data.stream.shard_cache import ShardCache


def most_mapped() -> int:
    """Shards that are mapped into memory, the first ones that are needed. Each keeps a file open, and half of those
    that this process may open are for others. Of further shards, a read opens the file, which takes longer.
    """
    if sys.platform == "win32":
        return 256
    import resource

    allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return 4096 if allowed == resource.RLIM_INFINITY else min(4096, allowed // 2)


MAPPED = most_mapped()

Tokens = npt.NDArray[np.unsignedinteger]


class TokenFile:
    """One shard, opened on first use, separately in each worker process (pickling a memory map would copy the file)."""

    def __init__(self, path: Path, *, dtype: str) -> None:
        self.path = Path(path)
        self.dtype = np.dtype(dtype).newbyteorder("<")
        try:
            size = self.path.stat().st_size
        except OSError as error:
            raise DataError(
                f"cannot open the token shard {self.path}: {error.strerror}",
                needed="a prepared data folder with train.bin and val.bin",
                fix="run the training or `lcp data` again; it rebuilds the folder",
            ) from error
        if size % self.dtype.itemsize:
            raise DataError(
                f"{self.path} has {size} bytes, which is not a whole number of {self.dtype.name} tokens",
                needed=f"a multiple of {self.dtype.itemsize} bytes; the file is truncated or the dtype is wrong",
                fix=f"delete {self.path.parent} and prepare the data again",
            )
        self.tokens = size // self.dtype.itemsize
        self._memory_map: npt.NDArray[np.unsignedinteger] | None = None

    def array(self) -> npt.NDArray[np.unsignedinteger]:
        """The tokens, shape (N,), read-only and memory-mapped."""
        if self._memory_map is None:
            mapped = np.memmap(self.path, dtype=self.dtype, mode="r", shape=(self.tokens,))
            self._memory_map = mapped.view(np.ndarray)  # same pages, but quicker to slice
        return self._memory_map

    def windows(self, starts: Ints, length: int) -> npt.NDArray[np.unsignedinteger]:
        """Tokens [start, start + length) for every start, shape (len(starts), length)."""
        return sliding_window_view(self.array(), length)[starts]

    def span(self, begin: int, end: int) -> npt.NDArray[np.unsignedinteger]:
        """Tokens [begin, end), which are cut at the end of the shard, shape (n,)."""
        return self.array()[begin:end]

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_memory_map": None}


class TokenRow:
    """The tokens of several shards, as if they were one.

    Args:
        shards: In order; none is empty.
        dtype: "uint16" or "uint32".

    Raises:
        DataError: A file is missing or shorter than its shard.
    """

    def __init__(self, shards: Sequence[Shard], *, dtype: str) -> None:
        self.dtype = np.dtype(dtype).newbyteorder("<")
        self.shards = tuple(shards)
        for shard in self.shards:
            _check(shard, self.dtype.itemsize)
        self._begins: Ints = np.cumsum([0, *(shard.tokens for shard in self.shards)], dtype=np.int64)
        self.tokens = int(self._begins[-1])
        self._mapped: dict[int, Tokens] = {}
        self.remote = any(shard.remote is not None for shard in self.shards)
        self._cache = ShardCache()

    def windows(self, starts: Ints, length: int) -> Tokens:
        """Tokens [start, start + length) for every start, shape (len(starts), length), copied.

        Raises:
            IndexError: A window lies outside the row.
        """
        if starts.size and (int(starts.min()) < 0 or int(starts.max()) + length > self.tokens):
            raise IndexError(f"tokens {starts.min()} to {starts.max() + length} of {self.tokens}")
        out = np.empty((len(starts), length), dtype=self.dtype)
        shards = np.searchsorted(self._begins, starts, side="right") - 1
        inside = starts - self._begins[shards]
        mapped = self._mapped
        for row, (number, at) in enumerate(zip(shards.tolist(), inside.tolist(), strict=True)):
            found = mapped.get(number)
            if found is not None and at + length <= len(found):
                out[row] = found[at : at + length]
            else:
                self._copy(out[row], at, number)
        return out

    def prefetch(self, starts: Ints, length: int) -> None:
        """Have what these windows need fetched in the background, of shards at addresses; nothing for others."""
        if not self.remote:
            return
        shards = np.searchsorted(self._begins, starts, side="right") - 1
        for number, at in zip(shards.tolist(), (starts - self._begins[shards]).tolist(), strict=True):
            shard = self.shards[number]
            if shard.remote is not None:
                begin = shard.offset + at * self.dtype.itemsize
                end = min(at + length, shard.tokens) * self.dtype.itemsize + shard.offset
                self._cache.prefetch(shard.remote, begin, end)

    def span(self, begin: int, end: int) -> Tokens:
        """Tokens [begin, end), which are cut at the end of the row, shape (n,), copied.

        Raises:
            IndexError: `begin` is negative.
        """
        if begin < 0:
            raise IndexError(f"token {begin} of {self.tokens}")
        end = max(begin, min(end, self.tokens))
        out = np.empty(end - begin, dtype=self.dtype)
        if len(out):
            number = int(np.searchsorted(self._begins, begin, side="right")) - 1
            self._copy(out, begin - int(self._begins[number]), number)
        return out

    def _copy(self, out: Tokens, at: int, number: int) -> None:
        """Fill `out` from token `at` of a shard on, and from the shards that follow."""
        filled = 0
        while filled < len(out):
            shard = self.shards[number]
            count = min(len(out) - filled, shard.tokens - at)
            self._read(number, at, out[filled : filled + count])
            filled, number, at = filled + count, number + 1, 0

    def _read(self, number: int, at: int, out: Tokens) -> None:
        """Fill `out` from token `at` of one shard on."""
        shard, width = self.shards[number], self.dtype.itemsize
        place = shard.offset + at * width
        if shard.remote is not None:
            out[:] = self._cache.read(shard.remote, place, place + len(out) * width).view(self.dtype)
            return
        found = self._mapped.get(number)
        if found is None and len(self._mapped) < MAPPED:
            mapped = np.memmap(shard.path, dtype=self.dtype, mode="r", offset=shard.offset, shape=(shard.tokens,))
            found = self._mapped[number] = mapped.view(np.ndarray)
        if found is not None:
            out[:] = found[at : at + len(out)]
            return
        if _read_into(out, shard.path, place) != out.nbytes:
            raise DataError(f"{shard.path} was cut short", needed=f"{shard.tokens:,} tokens", fix="restore it")

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_mapped": {}}  # pickling a memory map would copy the file


def _read_into(out: Tokens, path: Path, place: int) -> int:
    """Bytes that were read from a place of a file: without Python's file objects, which take longer than the read."""
    if not hasattr(os, "preadv"):  # Windows
        with path.open("rb", buffering=0) as file:
            file.seek(place)
            return file.readinto(out.data.cast("B"))
    handle = os.open(path, os.O_RDONLY)
    try:
        return os.preadv(handle, [out.data.cast("B")], place)
    finally:
        os.close(handle)


def sample_tokens(shards: Sequence[Shard], *, dtype: str, at_most: int = 1 << 22) -> Tokens:
    """All tokens, or `at_most` of them from segments spread evenly over the row; shape (n,)."""
    row = TokenRow(shards, dtype=dtype)
    if row.tokens <= at_most:
        return row.span(0, row.tokens)
    segments = 64
    length = at_most // segments
    starts = np.arange(segments, dtype=np.int64) * (row.tokens - length) // (segments - 1)
    return np.concatenate([row.span(int(start), int(start) + length) for start in starts])


def _check(shard: Shard, itemsize: int) -> None:
    if shard.remote is not None:  # its size and ETag are part of what names its blocks
        return
    try:
        size = shard.path.stat().st_size
    except OSError as error:
        raise DataError(
            f"cannot open the token shard {shard.path}: {error.strerror}",
            needed="every shard that the folder's manifest.json lists",
            fix="run the training or `lcp data` again; it rebuilds the folder",
        ) from error
    if size < shard.offset + shard.tokens * itemsize:
        raise DataError(
            f"{shard.path} has {size:,} bytes, too few for {shard.tokens:,} tokens",
            needed=f"{shard.offset + shard.tokens * itemsize:,} bytes",
            fix=f"delete {shard.path.parent} and prepare the data again, or copy the shard again",
        )
