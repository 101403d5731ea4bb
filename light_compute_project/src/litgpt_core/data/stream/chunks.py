"""A corpus cut into chunks by the names and sizes of its files alone: one chunk becomes one shard.

    big.jsonl   |--- 0 ---|--- 1 ---|--- 2 ---|      a large file is cut into equal ranges of bytes
    a.gz b.gz   |- 3 -|                              what cannot be entered in the middle, or is small, stays whole;
    c.gz        |-- 4 --|                            neighbours share a chunk

A record belongs to the range in which it begins, so a cut needs no look into the file. The order in which a file system
lists files decides nothing, and neither does the number of workers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from litgpt_core.data.stream.inputs import InputFile

SMALLEST, LARGEST, PARTS = 8_000_000, 256_000_000, 64
"""Automatic chunks: a 64th of the corpus, within these bytes."""

_UNEVEN = 1.5  # a file is cut when it is larger than this many chunks


@dataclass(frozen=True, kw_only=True)
class Range:
    """Bytes [begin, end) of a file; the records that begin in them."""

    file: InputFile
    begin: int
    end: int

    @property
    def entire(self) -> bool:
        """Whether it is the whole file."""
        return self.begin == 0 and self.end == self.file.bytes


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """What becomes one shard."""

    number: int
    ranges: tuple[Range, ...]

    @property
    def bytes(self) -> int:
        """Of the input, as stored."""
        return sum(part.end - part.begin for part in self.ranges)

    @property
    def label(self) -> str:
        """For messages: the file and bytes it begins with."""
        first = self.ranges[0]
        return f"{first.file.name} from byte {first.begin:,}" if first.begin else first.file.name


def automatic_chunk_bytes(files: Iterable[InputFile]) -> int:
    """Bytes of a chunk for a corpus: many enough for progress and all cores, few enough files."""
    return min(max(sum(file.bytes for file in files) // PARTS, SMALLEST), LARGEST)


def cut_chunks(files: Iterable[InputFile], *, chunk_bytes: int, divisible: Callable[[str], bool]) -> list[Chunk]:
    """Chunks of about `chunk_bytes`, in the order of names.

    Args:
        files: Sorted by name.
        chunk_bytes: At least 1.
        divisible: Whether a file of this name can be entered in the middle.
    """
    groups: list[list[Range]] = []
    waiting: list[Range] = []
    for file in files:
        whole = Range(file=file, begin=0, end=file.bytes)
        if divisible(file.name) and file.bytes > _UNEVEN * chunk_bytes:
            groups += [waiting] if waiting else []
            waiting = []
            count = -(-file.bytes // chunk_bytes)
            bounds = [i * file.bytes // count for i in range(count + 1)]
            groups += [[Range(file=file, begin=bounds[i], end=bounds[i + 1])] for i in range(count)]
            continue
        if waiting and sum(part.end - part.begin for part in waiting) + file.bytes > chunk_bytes:
            groups.append(waiting)
            waiting = []
        waiting.append(whole)
    groups += [waiting] if waiting else []
    return [Chunk(number=number, ranges=tuple(group)) for number, group in enumerate(groups)]
