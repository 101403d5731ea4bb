"""Single files: replaced atomically, hashed, flushed to disk. Whole folders are `directories`. No torch."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import os
import secrets
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_NO_DIRECTORY_FLUSH = {errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EACCES, errno.EPERM}


@contextlib.contextmanager
def replacing(path: Path, *, durable: bool = False) -> Iterator[Path]:
    """Yield the path of a temporary file beside `path` that takes its name when the block ends without an exception.

    Readers see the old content or the new one, never a part. On an exception `path` keeps its old content and the
    temporary file is removed. OSError passes through.

    Args:
        path: The file to replace; its folder is created if absent.
        durable: Flush content and name to disk first, so that they survive a power cut.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(3)}{path.suffix}")
    try:
        yield temporary
        if durable:
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    if durable:
        flush_directory(path.parent)


def write_atomically(path: Path, data: str | bytes, *, durable: bool = False) -> None:
    """Replace `path` by `data` (text as UTF-8, line ends as they are); see `replacing`.

    A half surrogate, which paths with bytes outside UTF-8 contain, is written as `\\udce9`: in JSON its own escape.
    """
    with replacing(path, durable=durable) as temporary:
        temporary.write_bytes(data.encode("utf-8", "backslashreplace") if isinstance(data, str) else data)


def write_json(path: Path, value: Any, *, indent: int | None = 2, durable: bool = False) -> None:
    """Replace `path` by `value` as JSON with a final line end; see `replacing`."""
    write_atomically(path, json.dumps(value, indent=indent, ensure_ascii=False) + "\n", durable=durable)


class HashedFile(io.RawIOBase):
    """A new file that counts and hashes what is written to it; flushed to disk at the end.

    Attributes:
        error: The first OSError of a write. torch reports a full disk as a RuntimeError without a cause; this keeps the
            cause.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._file = path.open("xb")
        self._hash = hashlib.sha256()
        self._bytes = 0
        self.error: OSError | None = None

    def writable(self) -> bool:
        """Always true: `io` asks."""
        return True

    def write(self, data: ReadableBuffer, /) -> int:
        """Append `data`; all of it or an OSError."""
        view = memoryview(data).cast("B")
        try:
            self._file.write(view)
        except OSError as problem:
            self.error = self.error or problem
            raise
        self._hash.update(view)
        self._bytes += view.nbytes
        return view.nbytes

    def finish(self) -> dict[str, int | str]:
        """Flush to disk, close, and return `{"bytes": size, "sha256": hex}`."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self.close()
        return {"bytes": self._bytes, "sha256": self._hash.hexdigest()}

    def close(self) -> None:
        """Close the file beneath; safe to call twice."""
        if not self.closed:
            super().close()
            self._file.close()


def sha256_of(path: Path) -> str:
    """SHA-256 (hex) of a file, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def flush_directory(path: Path) -> None:
    """Make the names inside `path` survive a power cut. Skipped where the system cannot (Windows, some networks)."""
    if sys.platform == "win32":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as problem:
        if problem.errno not in _NO_DIRECTORY_FLUSH:
            raise
    finally:
        os.close(descriptor)
