"""Files at addresses (s3://, gs://, hf://datasets/, https://) through fsspec, read in blocks with retries.

A block that a server refuses or cuts short is requested again, with growing pauses, so that a preparation of hours
survives a bad minute. A few blocks are kept in memory; nothing is written to disk, because every byte of text is read
once. Tokens, which training reads again, are kept in `shard_cache`. Which packages a protocol needs, fsspec says
(s3fs, gcsfs, huggingface_hub, aiohttp).
"""

from __future__ import annotations

import io
import logging
import re
import time
from collections import OrderedDict
from typing import Any, BinaryIO, cast

from litgpt_core.core.errors import DataError, EnvironmentProblem, LightComputeError
from litgpt_core.core.packages import optional

logger = logging.getLogger(__name__)

BLOCK_BYTES = 8_000_000
KEPT = 3
"""Blocks of a file in memory."""
ATTEMPTS = 7
FIRST_PAUSE_S = 0.5
"""Doubled after every attempt: 32 s together."""

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_FINAL = (FileNotFoundError, PermissionError, IsADirectoryError)


def open_remote(address: str, *, size: int) -> BinaryIO:
    """A file at an address, seekable; raises DataError while reading, when a block cannot be had."""
    filesystem(address)  # says what is missing
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
            files, path = filesystem(address)
            data = bytes(files.cat_file(path, start=begin, end=end))
            if len(data) == end - begin:
                return data
            problem: Exception = EOFError(f"{len(data):,} of {end - begin:,} bytes came")
        except _FINAL as error:
            raise unreachable(address, error) from error
        except LightComputeError:
            raise
        except Exception as error:  # every protocol has errors of its own
            problem = error
        if attempt < ATTEMPTS:
            logger.warning("%s, bytes %s: %s; again in %.1f s", address, f"{begin:,}", problem, pause)
            time.sleep(pause)
            pause *= 2
    raise unreachable(address, problem) from problem


def is_address(path: str) -> bool:
    """Whether a path is an address such as `s3://bucket/folder`."""
    return _ADDRESS.match(path) is not None


def filesystem(address: str) -> tuple[Any, str]:
    """fsspec's file system of an address, and the path in it.

    Raises:
        EnvironmentProblem: The package of the protocol is missing.
        DataError: fsspec knows no such protocol.
    """
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


def unreachable(address: str, error: Exception) -> DataError:
    """What is raised where an address cannot be read."""
    return DataError(
        f"{address} cannot be read: {type(error).__name__}: {str(error)[:300]}",
        needed="an existing file or folder that these credentials may read, and a server that answers",
        fix="check the address; the same command again continues where this one ended",
    )
