"""The input files of a corpus: names, sizes and when they changed, here or at an address; nothing is read.

Not here: how they are cut (`chunks`), what is in them (`readers`), how bytes of an address are fetched (`remote`).
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from litgpt_core.core.errors import DataError
from litgpt_core.data.files import kind_of, missing_path, named_files, shown

State = dict[str, list[int | str]]
"""Name of an input -> its size and what changes with its content."""

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


@dataclass(frozen=True, kw_only=True)
class InputFile:
    """One file of a corpus."""

    name: str
    """Within the corpus, with forward slashes; the order of names is the order of the corpus."""
    address: str
    """An absolute path, or an address."""
    bytes: int
    stamp: tuple[int | str, ...]
    """Times of change (content, then content or attributes; ns) and file number; of an address, 0, 0 and its ETag."""

    def open(self) -> BinaryIO:
        """The bytes as they are, seekable.

        Raises:
            DataError: The file is gone or may not be read.
        """
        if is_address(self.address):
            from litgpt_core.data.stream.remote import open_remote

            return open_remote(self.address, size=self.bytes)
        try:
            return Path(self.address).open("rb")
        except OSError as error:
            raise DataError(
                f"cannot read {shown(self.address)}: {error.strerror}",
                needed="a file this user may read",
                fix="check its permissions, or data.path=OTHER",
            ) from error


def is_address(path: str) -> bool:
    """Whether a path is an address such as `s3://bucket/folder`."""
    return _ADDRESS.match(path) is not None


def list_inputs(path: str, pattern: str, *, report: bool = True) -> list[InputFile]:
    """Files of a corpus, sorted by name, however the file system lists them; empty files are left out.

    Args:
        path: A file, a folder or an address.
        pattern: Which files of a folder.
        report: Whether links and files that do not match are logged.

    Raises:
        DataError: The path is missing, nothing matches, or every file is empty.
    """
    if is_address(path):
        from litgpt_core.data.stream.remote import list_remote

        found = [InputFile(**file._asdict()) for file in list_remote(path, pattern)]
    else:
        found = _list_local(Path(path).expanduser(), pattern, report=report)
    filled = sorted((file for file in found if file.bytes), key=lambda file: file.name)
    if not filled:
        raise DataError(
            f"{shown(path)} holds no text: every file is empty", needed="some text", fix="data.path=FILE_OR_FOLDER"
        )
    return filled


def state_of(files: list[InputFile]) -> State:
    """What tells later whether an input has changed."""
    return {file.name: [file.bytes, *file.stamp] for file in files}


def _list_local(path: Path, pattern: str, *, report: bool) -> list[InputFile]:
    kind = kind_of(path)
    if kind == "missing":
        raise missing_path(path)
    folder = os.path.abspath(path)  # noqa: PTH100 - of the folder, once, instead of ten thousand files
    if kind != "folder":
        return [_local(folder, shown(path.name))]
    return [_local(file, shown(name)) for name, file in named_files(Path(folder), pattern, report=report)]


def _local(address: str, name: str) -> InputFile:
    try:
        found = os.stat(address)  # noqa: PTH116
    except OSError as error:
        raise DataError(
            f"cannot look at {shown(address)}: {error.strerror}",
            needed="a file this user may read",
            fix="data.path=OTHER",
        ) from error
    stamp = (found.st_mtime_ns, found.st_ctime_ns, found.st_ino)
    return InputFile(name=name, address=address, bytes=found.st_size, stamp=stamp)
