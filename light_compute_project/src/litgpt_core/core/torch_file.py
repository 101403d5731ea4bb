"""Bounds for files of `torch.save`, checked before anything in them is unpickled. Standard library only.

`torch.load(weights_only=True)` runs no code of a file, but a few hundred bytes can still make it hang (a tuple of twice
the same tuple, thirty times, as a dict's key), fill the memory (a compressed entry; `bytearray(10**12)`), or end the
process (a tuple nested 100,000 levels deep). Files that torch wrote pass; the check takes as long as loading names and
shapes.
"""

from __future__ import annotations

import io
import pickletools
import struct
import zipfile
from pathlib import Path
from typing import IO

MAX_DIRECTORY_BYTES = 20_000_000
"""Of the zip archive's list of entries; each takes about 80 bytes."""
MAX_PICKLE_BYTES = 64_000_000
MAX_OPCODES = 500_000
"""Going through them takes about 2 microseconds each; torch.save writes about 30 for a tensor."""
MAX_GROWN = 10_000_000
"""Values of a pickle, each counted as often as it is referred to."""
MAX_DEPTH = 200
_FORBIDDEN = {"builtins bytearray", "__builtin__ bytearray", "_codecs encode"}
"""Allowed by torch, and able to take any amount of memory or time; a state dict has none."""
_LEGACY_PICKLES = 5
"""Magic number, protocol, system, content, keys of the storages."""


class TorchFileError(ValueError):
    """The file is no archive of torch.save, or could take any amount of time or memory; the message is a clause."""


def archive_entries(file: Path) -> dict[str, zipfile.ZipInfo]:
    """The entries of a zip archive by name, after checks that read only its end.

    Raises:
        TorchFileError: It is truncated, no archive of torch.save, or has compressed, overlapping or repeated entries.
        OSError: It cannot be read.
    """
    size = file.stat().st_size
    try:
        with file.open("rb") as opened:
            if (directory := _directory_bytes(opened, size=size)) > min(size, MAX_DIRECTORY_BYTES):
                raise TorchFileError(f"its list of entries would take {directory:,} bytes")
            with zipfile.ZipFile(opened) as archive:
                entries = archive.infolist()
    except (OSError, TorchFileError):
        raise
    except Exception as problem:  # zipfile raises errors of many kinds for damaged lists
        raise TorchFileError(f"{problem}. It is truncated, corrupted, or not a zip archive") from None
    named = {entry.filename: entry for entry in entries}
    if sum(name.endswith("data.pkl") for name in named) != 1 or len(named) != len(entries):
        raise TorchFileError("it is a zip archive, but not one of torch.save")
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise TorchFileError("its entries are compressed, which torch.save never does")
    if sum(entry.file_size for entry in entries) > size:
        raise TorchFileError("its entries overlap: together they are larger than the file")
    return named


def _directory_bytes(opened: IO[bytes], *, size: int) -> int:
    """Size of the archive's list of entries, from the record at its end; 0 if there is none: zipfile says more."""
    opened.seek(max(0, size - 65_557))
    tail = opened.read()
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) < at + 22:
        return 0
    found: int = struct.unpack("<I", tail[at + 12 : at + 16])[0]
    if found == 0xFFFFFFFF and tail[at - 20 : at - 16] == b"PK\x06\x07":
        place = struct.unpack("<Q", tail[at - 12 : at - 4])[0]
        if place < size:
            opened.seek(place)
            record = opened.read(56)
            found = struct.unpack("<Q", record[40:48])[0] if len(record) == 56 else 0
    return found


def check_torch_file(file: Path) -> None:
    """Check a file of torch.save, a zip archive or the format until 2020, as far as loading it needs.

    Raises:
        TorchFileError: It is damaged, or could take any amount of time or memory.
        OSError: It cannot be read.
    """
    with file.open("rb") as opened:
        if opened.read(4) == b"PK\x03\x04":
            (name,) = (name for name in archive_entries(file) if name.endswith("data.pkl"))
            with zipfile.ZipFile(opened) as archive:
                if archive.getinfo(name).file_size > MAX_PICKLE_BYTES:
                    raise TorchFileError(f"its pickle has {archive.getinfo(name).file_size:,} bytes")
                check_pickle(io.BytesIO(_read(archive, name)))
            return
        opened.seek(0)
        for _ in range(_LEGACY_PICKLES):
            check_pickle(opened)


def _read(archive: zipfile.ZipFile, name: str) -> bytes:
    try:
        return archive.read(name)
    except Exception as problem:  # wrong checksum, wrong name in the entry, encryption
        raise TorchFileError(f"its entry {name} is corrupted: {problem}") from None


class _Node:
    """A value: how many it contains, repetitions counted, how deep it is nested, and its text if it is one."""

    __slots__ = ("depth", "size", "text")

    def __init__(self, parts: list[_Node], *, text: object = "") -> None:
        self.size, self.depth, self.text = 1, 1, text
        self.add(parts)

    def add(self, parts: list[_Node]) -> None:
        """Put `parts` in; TorchFileError if this grows too large or deep."""
        self.size += sum(part.size for part in parts)
        self.depth = max([self.depth, *(part.depth + 1 for part in parts)])
        if self.size > MAX_GROWN:
            raise TorchFileError(f"its pickle builds more than {MAX_GROWN:,} values by repeating some")
        if self.depth > MAX_DEPTH:
            raise TorchFileError(f"its pickle is nested more than {MAX_DEPTH} levels deep")


def check_pickle(stream: IO[bytes], *, max_opcodes: int = MAX_OPCODES) -> None:
    """Go through the opcodes of one pickle without building anything; the stream is left behind its end.

    Raises:
        TorchFileError: It is damaged, or would build too much.
    """
    stack: list[_Node | None] = []  # None: a mark
    memo: dict[int, _Node] = {}
    try:
        for number, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
            if number > max_opcodes:
                raise TorchFileError(f"its pickle has more than {max_opcodes:,} opcodes")
            _step(opcode, argument, stack=stack, memo=memo)
    except TorchFileError:
        raise
    except Exception as problem:  # pickletools raises errors of many kinds for damaged pickles
        raise TorchFileError(f"its pickle is corrupted ({str(problem) or type(problem).__name__})") from None


def _step(
    opcode: pickletools.OpcodeInfo, argument: object, *, stack: list[_Node | None], memo: dict[int, _Node]
) -> None:
    name = opcode.name
    if name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
        at = len(memo) if name == "MEMOIZE" else int(str(argument))
        if at > 2 * len(memo) + 1000:  # torch numbers them one after the other
            raise TorchFileError(f"its pickle stores a value at place {at:,}")
        memo[at] = _top(stack)
    elif name in ("GET", "BINGET", "LONG_BINGET"):
        stack.append(memo[int(str(argument))])
    elif name == "DUP":
        stack.append(_top(stack))
    elif name == "MARK":
        stack.append(None)
    elif name in ("APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS", "BUILD"):
        parts = _to_mark(stack) if name.endswith("S") else _pop(stack, 2 if name == "SETITEM" else 1)
        _top(stack).add(parts)
    else:
        if name.startswith("EXT"):
            raise TorchFileError(f"its pickle uses {name}, which torch.save does not")
        before = opcode.stack_before
        if pickletools.markobject in before:
            parts = _to_mark(stack)
            parts += _pop(stack, before.index(pickletools.markobject))
        else:
            parts = _pop(stack, len(before))
        named = " ".join(str(part.text) for part in reversed(parts)) if name == "STACK_GLOBAL" else str(argument)
        if name in ("GLOBAL", "INST", "STACK_GLOBAL") and named in _FORBIDDEN:
            raise TorchFileError(f"its pickle names {named.replace(' ', '.')}")
        stack.extend(_Node(parts, text=argument) for _ in opcode.stack_after)


def _top(stack: list[_Node | None]) -> _Node:
    top = stack[-1]
    if top is None:
        raise TorchFileError("its pickle is corrupted (a mark instead of a value)")
    return top


def _pop(stack: list[_Node | None], count: int) -> list[_Node]:
    parts = []
    for _ in range(count):
        parts.append(_top(stack))
        stack.pop()
    return parts


def _to_mark(stack: list[_Node | None]) -> list[_Node]:
    parts = []
    while (top := stack.pop()) is not None:
        parts.append(top)
    return parts
