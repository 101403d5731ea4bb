"""The input files of a corpus: names, sizes and when they changed, here or at an address; nothing is read.

Not here: how they are cut (`chunks`), what is in them (`readers`), how bytes of an address are fetched (`remote`).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from litgpt_core.core.errors import DataError
from litgpt_core.data.files import bare_name, kind_of, missing_path, name_matcher, named_files, shown
from litgpt_core.data.stream.remote import filesystem, is_address, open_remote, unreachable

State = dict[str, list[int | str]]
"""Name of an input -> its size and what changes with its content."""


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
            return open_remote(self.address, size=self.bytes)
        try:
            return Path(self.address).open("rb")
        except OSError as error:
            raise DataError(
                f"cannot read {shown(self.address)}: {error.strerror}",
                needed="a file this user may read",
                fix="check its permissions, or data.path=OTHER",
            ) from error


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
        found = list_remote(path, pattern)
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


def list_remote(address: str, pattern: str) -> list[InputFile]:
    """The files at an address: that one, or those of a folder whose names match; hidden ones are left out. The address
    of a folder on a web server ends with a slash.

    Raises:
        DataError: Nothing is there, nothing matches, or the server does not answer.
        EnvironmentProblem: The package of the protocol is missing.
    """
    files, root = filesystem(address)
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
        raise unreachable(address, error) from error
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


def _input(address: str, name: str, info: dict[str, Any]) -> InputFile:
    tag = next(
        (info[key] for key in ("ETag", "etag", "md5Hash", "blob_id", "mtime", "LastModified") if info.get(key)), ""
    )
    return InputFile(name=name, address=address, bytes=int(info.get("size") or 0), stamp=(0, 0, str(tag)))


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
