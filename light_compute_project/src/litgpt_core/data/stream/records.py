"""Records in the bytes of a stream: lines, texts between separators, sections of a long text. In constant memory.

A file that is read in ranges is entered at `record_start`: both neighbours of a cut find the same place, so every
record is read once. Not here: what a record means (`readers`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

BLOCK = 1 << 20
LONGEST = 64_000_000
"""Bytes of the longest record."""


def record_start(file: BinaryIO, position: int, *, delimiter: bytes) -> int:
    """Where the first record begins at or after `position`; the size of the file if none does.

    Args:
        file: Seekable.
        position: 0 or more.
        delimiter: What ends a record.
    """
    if position == 0:
        return 0
    at = max(0, position - len(delimiter))
    file.seek(at)
    tail = b""
    while block := file.read(BLOCK):
        data = tail + block
        found = data.find(delimiter)
        if found >= 0:
            return at - len(tail) + found + len(delimiter)
        at += len(block)
        tail = data[len(data) - len(delimiter) + 1 :] if len(delimiter) > 1 else b""
    return at


def section_start(file: BinaryIO, position: int) -> int:
    """Where a section of a plain text begins at or after `position`: behind the next line end, or at the next character
    where none is near.
    """
    if position == 0:
        return 0
    file.seek(position - 1)
    data = file.read(BLOCK + 1)
    found = data.find(b"\n")
    if found >= 0:
        return position + found
    return position + _character_start(data[1:], 0)


def lines(stream: BinaryIO, *, length: int | None, longest: int = LONGEST) -> Iterator[bytes | None]:
    """Lines, their ends included; None for one that is longer than `longest`.

    Args:
        stream: At the beginning of a line.
        length: Bytes to read; None reads all.
        longest: Bytes.
    """
    left = length if length is not None else 1 << 62
    while left > 0:
        line = stream.readline(min(longest, left))
        if not line:
            return
        left -= len(line)
        if len(line) < longest or line.endswith(b"\n"):
            yield line
            continue
        while left > 0 and line and not line.endswith(b"\n"):
            line = stream.readline(min(longest, left))
            left -= len(line)
        yield None


def separated(
    stream: BinaryIO, separator: bytes, *, length: int | None, longest: int = LONGEST
) -> Iterator[bytes | None]:
    """Texts between separators, without them; None for one that is longer than `longest`."""
    data, searched, skipping = b"", 0, False
    for block in _blocks(stream, length):
        data += block
        start = 0
        while (found := data.find(separator, max(start, searched))) >= 0:
            yield None if skipping or found - start > longest else data[start:found]
            start, skipping = found + len(separator), False
        data = data[start:]
        if len(data) > longest:
            data, skipping = data[-len(separator) :], True
        searched = max(0, len(data) - len(separator) + 1)
    if data.strip() or skipping:
        yield None if skipping else data


def sections(stream: BinaryIO, *, length: int | None, size: int = BLOCK) -> Iterator[bytes]:
    """A long text in sections of at most `size` bytes that join to exactly the text: cut behind a blank line where one
    is in the second half, else behind a line, a space, or a character of UTF-8.
    """
    data = b""
    for block in _blocks(stream, length, size=size):
        data += block
        while len(data) >= size:
            cut = _cut(data[:size])
            yield data[:cut]
            data = data[cut:]
    if data:
        yield data


def _cut(data: bytes) -> int:
    half = len(data) // 2
    for end in (b"\n\n", b"\n", b" "):
        found = data.rfind(end, half)
        if found >= 0:
            return found + len(end)
    last = len(data) - 1
    while last > half and data[last] & 0xC0 == 0x80:
        last -= 1
    return last  # the character that begins here goes to the next section


def _character_start(data: bytes, at: int) -> int:
    while at < min(len(data), 4) and data[at] & 0xC0 == 0x80:
        at += 1
    return at


def _blocks(stream: BinaryIO, length: int | None, *, size: int = BLOCK) -> Iterator[bytes]:
    left = length if length is not None else 1 << 62
    while left > 0:
        block = stream.read(min(size, left))
        if not block:
            return
        left -= len(block)
        yield block
