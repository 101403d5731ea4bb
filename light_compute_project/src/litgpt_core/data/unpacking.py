"""Compressed files as streams of their content, in constant memory: gzip, bzip2, xz and zstd, by their first bytes."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from typing import Any, BinaryIO, cast

from litgpt_core.core.errors import DataError
from litgpt_core.core.packages import optional

SUFFIXES = (".gz", ".bz2", ".xz", ".zst")
"""What the names of compressed files end with."""

_BLOCK = 1 << 20
_FED = 1 << 13  # bytes of zstd data at once: 8 KB hold at most some hundred MB, and usually less than 100 KB
_ZSTD = b"\x28\xb5\x2f\xfd"
_NAMES = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\x00": "xz", _ZSTD: "zstd"}


def compression_of(head: bytes) -> str:
    """`gzip`, `bzip2`, `xz` or `zstd` by the first bytes of a file; empty for any other."""
    return next((name for start, name in _NAMES.items() if head.startswith(start)), "")


def is_compressed_name(name: str) -> bool:
    """Whether a file's name says that it is compressed."""
    return name.endswith(SUFFIXES)


def unpacked(file: BinaryIO, *, name: str) -> BinaryIO:
    """The content of an open file from its beginning, unpacked if it is compressed.

    Args:
        file: At its beginning, seekable.
        name: For messages.

    Raises:
        EnvironmentProblem: It is compressed by zstd, and the package zstandard is missing.
        DataError: While reading: its compressed data is damaged or cut off.
    """
    head = file.read(8)
    file.seek(0)
    kind = compression_of(head)
    if not kind:
        return file
    opened: Any
    if kind == "gzip":
        opened = gzip.GzipFile(fileobj=file)
    elif kind == "bzip2":
        opened = bz2.BZ2File(file)
    elif kind == "xz":
        opened = lzma.LZMAFile(file)  # noqa: SIM115
    else:
        opened = _ZstdFile(file)
    return cast(BinaryIO, io.BufferedReader(_Named(opened, kind, name), buffer_size=_BLOCK))


class _Named(io.RawIOBase):
    """A stream whose errors say which file is damaged."""

    def __init__(self, stream: Any, kind: str, name: str) -> None:
        super().__init__()
        self._stream, self._kind, self._name = stream, kind, name

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        try:
            data = self._stream.read(len(buffer))
        except (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError) as error:
            raise DataError(
                f"{self._name} is damaged {self._kind} data: {error}",
                needed="an intact file",
                fix="copy or download it again",
            ) from error
        buffer[: len(data)] = data
        return len(data)


class _ZstdFile:
    """All frames of a zstd file, one after the other; a file that is cut off is an EOFError."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._decompressor = zstandard().ZstdDecompressor(max_window_size=1 << 31)  # also files of `zstd --long`
        self._frame: Any = None
        self._fed, self._ready = b"", b""

    def read(self, size: int) -> bytes:
        """At least one byte and at most `size`; nothing at the end."""
        while not self._ready:
            data = self._fed or self._file.read(_FED)
            self._fed = b""
            if not data:
                if self._frame is not None:
                    raise EOFError("the file is cut off inside a frame")
                return b""
            if self._frame is None:
                self._frame = self._decompressor.decompressobj()
            try:
                self._ready = self._frame.decompress(data)
            except zstandard().ZstdError as error:
                raise ValueError(str(error)) from error
            if self._frame.eof:
                self._fed, self._frame = self._frame.unused_data, None
        given, self._ready = self._ready[:size], self._ready[size:]
        return given


def zstandard() -> Any:
    """The package of that name.

    Raises:
        EnvironmentProblem: It is not installed.
    """
    return optional("zstandard")
