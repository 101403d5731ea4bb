"""Files at addresses (s3://, gs://, hf://datasets/, https://) through fsspec: listed, and read in blocks with retries.

A block that a server refuses or cuts short is requested again, with growing pauses, so that a preparation of hours
survives a bad minute. A few blocks are kept in memory; nothing is written to disk, because every byte of text is read
once. Tokens, which training reads again, are kept in `shard_cache`. Which packages a protocol needs, fsspec says
(s3fs, gcsfs, huggingface_hub, aiohttp).
"""

from __future__ import annotations

import io
import logging
import time
from collections import OrderedDict
from typing import Any, BinaryIO, NamedTuple, cast

from litgpt_core.core.errors import DataError, EnvironmentProblem, LightComputeError
from litgpt_core.data.files import bare_name, name_matcher
from litgpt_core.data.unpacking import optional

logger = logging.getLogger(__name__)

BLOCK_BYTES = 8_000_000
KEPT = 3
"""Blocks of a file in memory."""
ATTEMPTS = 7
FIRST_PAUSE_S = 0.5
"""Doubled after every attempt: 32 s together."""

_FINAL = (FileNotFoundError, PermissionError, IsADirectoryError)


class RemoteFile(NamedTuple):
    """A file at an address; the fields are those of `InputFile`."""

    name: str
    address: str
    bytes: int
    stamp: tuple[int | str, ...]


def list_remote(address: str, pattern: str) -> list[RemoteFile]:
    """The files at an address: that one, or those of a folder whose names match; hidden ones are left out. The address
    of a folder on a web server ends with a slash.

    Raises:
        DataError: Nothing is there, nothing matches, or the server does not answer.
        EnvironmentProblem: The package of the protocol is missing.
    """
    files, root = _filesystem(address)
    try:
        if not address.endswith("/") and files.isfile(root):
            found = {root: files.info(root)}
            names = {root: root.rstrip("/").rpartition("/")[2]}
        else:
            found = files.find(root, detail=True)
            names = {path: path.removeprefix(root).lstrip("/") for path in found}
            matches = name_matcher(pattern)
            names = {
                path: name
                for path, name in names.items()
                if not any(part.startswith(".") for part in name.split("/"))
                and (matches(name) or matches(bare_name(name)))
            }
        found |= {path: files.info(path) for path in names if found[path].get("size") is None}  # of web servers
    except Exception as error:  # every protocol has errors of its own
        raise _unreachable(address, error) from error
    if not found:
        raise DataError(
            f"{address} is not there, does not answer, or holds no files",
            needed="an existing file or folder; that of a web server ends with a slash",
            fix="data.path=ADDRESS",
        )
    if not names:
        raise DataError(
            f"{address} holds {len(found):,} file(s), none of which matches data.glob={pattern!r}",
            needed="at least one matching file",
            fix="data.glob='**/*', or another data.path",
        )
    return [_input(files.unstrip_protocol(path), name, found[path]) for path, name in names.items()]


def open_remote(address: str, *, size: int) -> BinaryIO:
    """A file at an address, seekable; raises DataError while reading, when a block cannot be had."""
    _filesystem(address)  # says what is missing
    return cast(BinaryIO, io.BufferedReader(_RemoteFile(address, size=size), buffer_size=1 << 20))


class _RemoteFile(io.RawIOBase):
    def __init__(self, address: str, *, size: int) -> None:
        super().__init__()
        self._address, self._size = address, size
        self._at = 0
        self._blocks: OrderedDict[int, bytes] = OrderedDict()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def readinto(self, buffer: Any, /) -> int:
        if self._at >= self._size:
            return 0
        number, inside = divmod(self._at, BLOCK_BYTES)
        data = self._block(number)[inside : inside + len(buffer)]
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def _block(self, number: int) -> bytes:
        found = self._blocks.get(number)
        if found is None:
            begin, end = number * BLOCK_BYTES, min((number + 1) * BLOCK_BYTES, self._size)
            found = self._blocks[number] = fetch_range(self._address, begin=begin, end=end)
            if len(self._blocks) > KEPT:
                self._blocks.popitem(last=False)
        return found


def fetch_range(address: str, *, begin: int, end: int) -> bytes:
    """Bytes [begin, end) of a file at an address; a request that fails or is cut short is repeated.

    Raises:
        DataError: They cannot be had.
    """
    pause = FIRST_PAUSE_S
    for attempt in range(1, ATTEMPTS + 1):
        try:
            files, path = _filesystem(address)
            data = bytes(files.cat_file(path, start=begin, end=end))
            if len(data) == end - begin:
                return data
            problem: Exception = EOFError(f"{len(data):,} of {end - begin:,} bytes came")
        except _FINAL as error:
            raise _unreachable(address, error) from error
        except LightComputeError:
            raise
        except Exception as error:  # every protocol has errors of its own
            problem = error
        if attempt < ATTEMPTS:
            logger.warning("%s, bytes %s: %s; again in %.1f s", address, f"{begin:,}", problem, pause)
            time.sleep(pause)
            pause *= 2
    raise _unreachable(address, problem) from problem


def _filesystem(address: str) -> tuple[Any, str]:
    core = optional("fsspec.core")
    try:
        files, path = core.url_to_fs(address)
    except ImportError as error:
        raise EnvironmentProblem(
            f"{address}: {error}", needed="the package of that protocol", fix="pip install s3fs, gcsfs or aiohttp"
        ) from error
    except ValueError as error:
        raise DataError(
            f"{address}: {error}", needed="an address that fsspec knows, such as s3://, gs://, hf://, https://"
        ) from error
    return files, str(path)


def _input(address: str, name: str, info: dict[str, Any]) -> RemoteFile:
    tag = next(
        (info[key] for key in ("ETag", "etag", "md5Hash", "blob_id", "mtime", "LastModified") if info.get(key)), ""
    )
    return RemoteFile(name=name, address=address, bytes=int(info.get("size") or 0), stamp=(0, 0, str(tag)))


def _unreachable(address: str, error: Exception) -> DataError:
    return DataError(
        f"{address} cannot be read: {type(error).__name__}: {str(error)[:300]}",
        needed="an existing file or folder that these credentials may read, and a server that answers",
        fix="check the address; the same command again continues where this one ended",
    )
