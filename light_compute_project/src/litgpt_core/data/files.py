"""The files of a folder, and their bytes: links followed once, compressed files unpacked, what was left out reported.

    notes/           a folder is read with its subfolders, in order of names, hidden ones left out
    notes/old -> /x  a link to a folder is followed; one that leads back into a folder already read is named and skipped
    notes/a.txt.gz   matches `*.txt`: gzip, bzip2, xz and zstd are recognised by their first bytes

Not here: what the bytes mean (`encoding`, `chat_rows`).
"""

from __future__ import annotations

import difflib
import fnmatch
import io
import logging
import os
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from litgpt_core.core.errors import DataError
from litgpt_core.data.unpacking import SUFFIXES, compression_of, unpacked

logger = logging.getLogger(__name__)

SHOWN = 10
MAX_RATIO = 200
"""How many times its size a compressed file may unpack to, where it is read whole. Text reaches 3 to 30."""
ANY_RATIO = 32_000_000
"""Bytes to which any file may unpack."""
USUAL_RATIO, COUNTED_BYTES = 60, 16_000_000
"""From more than this on, in times its size and in bytes, content is counted before any of it is kept."""


def kind_of(path: Path) -> Literal["folder", "file", "missing"]:
    """What is at a path; DataError for a path that the system refuses to look at."""
    try:
        return "folder" if path.is_dir() else "file" if path.exists() else "missing"
    except OSError as error:
        raise DataError(
            f"cannot look at {shown(str(path)[:200])}: {error.strerror}",
            needed="the path of a file or folder that this user may read",
            fix="data.path=FILE_OR_FOLDER",
        ) from error


def read_file(path: Path) -> bytes:
    """The bytes of a file, unpacked if it is compressed.

    Raises:
        DataError: It cannot be read, is no regular file, or its compressed data is damaged.
    """
    try:
        if path.exists() and not path.is_file():
            raise DataError(
                f"{shown(path)} is neither a file nor a folder",
                needed="a regular file (save what a pipe yields into one)",
                fix="data.path=FILE_OR_FOLDER",
            )
        raw = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"cannot read {shown(path)}: {error.strerror}",
            needed="a file this user may read",
            fix="check its permissions, or data.path=OTHER",
        ) from error
    return _whole(raw, name=shown(path)) if compression_of(raw[:8]) else raw


def _whole(raw: bytes, *, name: str) -> bytes:
    """The content of compressed data; DataError, before memory is filled, if it unpacks to absurdly much."""
    chunks, length = [], 0
    with unpacked(io.BytesIO(raw), name=name) as file:
        while chunk := file.read(1 << 20):
            chunks.append(chunk)
            length += len(chunk)
            if length > max(COUNTED_BYTES, USUAL_RATIO * len(raw)):
                chunks.clear()
                _check_ratio(raw, name=name)
                with unpacked(io.BytesIO(raw), name=name) as again:
                    return again.read()
    return b"".join(chunks)


def _check_ratio(raw: bytes, *, name: str) -> None:
    """Unpack and keep nothing; DataError beyond `MAX_RATIO`."""
    length = 0
    with unpacked(io.BytesIO(raw), name=name) as file:
        while chunk := file.read(1 << 20):
            length += len(chunk)
            if length > max(ANY_RATIO, MAX_RATIO * len(raw)):
                raise DataError(
                    f"{name} unpacks to more than {length // len(raw)} times its {len(raw):,} bytes",
                    needed=f"text, which unpacks to at most {MAX_RATIO} times its size",
                    fix="if it is yours, unpack it and name the unpacked file",
                )


def shown(path: Path | str) -> str:
    """A path for messages and records: bytes that are not UTF-8, and control characters, as escapes."""
    text = str(path)
    if text.isascii() and text.isprintable():
        return text
    text = os.fsencode(text).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def document_name(path: Path, root: Path) -> str:
    """A file's name within its folder, with forward slashes."""
    return shown(path.relative_to(root).as_posix())


def matching_files(folder: Path, pattern: str, *, report: bool = True) -> list[Path]:
    """Files of a folder by a glob pattern, sorted by name, no hidden ones; see `named_files`."""
    return [Path(path) for _, path in named_files(folder, pattern, report=report)]


def named_files(folder: Path, pattern: str, *, report: bool = True) -> list[tuple[str, str]]:
    """(name within the folder, path) of its files by a glob pattern, sorted by name, no hidden ones. Paths are strings:
    objects take ten times as long for ten thousand of them.

    A compressed file matches by its name without `.gz`, `.bz2`, `.xz` or `.zst`.

    Args:
        folder: Where to look.
        pattern: As `Path.glob` reads it.
        report: Whether links and files that do not match are logged.

    Raises:
        DataError: The pattern is malformed, a folder cannot be listed, or nothing matches: the message lists what is
            there, and a pattern that would match.
    """
    matches = name_matcher(pattern)
    found = sorted((name, path) for name, path in _listed(folder, report=report).items())
    chosen, others = list[tuple[str, str]](), Counter[str]()
    for name, path in found:
        if matches(name) or matches(bare_name(name)):
            chosen.append((name, path))
        else:
            others[Path(bare_name(name)).suffix] += 1
    kinds = ", ".join(f"{count} x {shown(suffix) or 'no ending'}" for suffix, count in others.most_common(SHOWN))
    if chosen:
        if others and report:
            logger.info("data: %s other file(s) do not match data.glob=%r: %s", f"{others.total():,}", pattern, kinds)
        return chosen
    if not found:
        raise DataError(
            f"{shown(folder)} holds no files (hidden ones do not count)",
            needed="a folder with text files",
            fix="data.path=OTHER_FOLDER",
        )
    best = others.most_common(1)[0][0]
    raise DataError(
        f"no file in {shown(folder)} matches data.glob={pattern!r}; there is: {kinds}",
        needed="at least one matching file",
        fix=f"data.glob='**/*{best}'" if re.fullmatch(r"(\.\w+)?", best) else "data.glob='**/*'",
    )


def bare_name(name: str) -> str:
    """A file's name without the ending that says how it is compressed."""
    return name.removesuffix(next((suffix for suffix in SUFFIXES if name.endswith(suffix)), ""))


def name_matcher(pattern: str) -> Callable[[str], bool]:
    """Whether a relative path with forward slashes matches, as `Path.glob` matches: `**` is any number of folders."""
    parts = pattern.split("/")
    problem = (
        "it is absolute"
        if pattern.startswith("/") or Path(pattern).is_absolute()
        else "'..' leads out of the folder"
        if ".." in parts
        else "'**' must stand between slashes"
        if any("**" in part and part != "**" for part in parts)
        else ""
    )
    if problem or not pattern.strip("/"):
        raise DataError(
            f"data.glob={pattern!r} is not a usable pattern: {problem or 'it is empty'}", fix="data.glob='**/*.txt'"
        )
    segments = [part for part in parts if part not in ("", ".")]
    if segments[:-1] == ["**"] and segments[-1] != "**":  # any depth: the last name decides, ten thousand times
        fits = re.compile(fnmatch.translate(segments[-1])).match
        return lambda name: fits(name.rpartition("/")[2]) is not None
    return lambda name: _fits(segments, name.split("/"))


def _fits(segments: Sequence[str], names: Sequence[str]) -> bool:
    if not segments:
        return not names
    if segments[0] != "**":
        return bool(names) and fnmatch.fnmatchcase(names[0], segments[0]) and _fits(segments[1:], names[1:])
    rest = segments[1:] or ["*"]
    return any(_fits(rest, names[skipped:]) for skipped in range(len(names)))


def _listed(folder: Path, *, report: bool) -> dict[str, str]:
    """Name within the folder -> path, of every file that is not hidden. Linked folders come last, each one once."""
    files: dict[str, str] = {}
    visited: set[tuple[int, int]] = set()
    links = [folder]
    followed, skipped = [], []
    while links:
        start = links.pop(0)
        if start != folder:
            inside = folder.resolve().is_relative_to(start.resolve()) if start.exists() else True
            if inside or _identity(start) in visited:
                skipped.append(start)
                continue
            followed.append(start)
        links += _walk(start, folder, files, visited)
    if report:
        _report_links(followed, skipped)
    return files


def _walk(start: Path, folder: Path, files: dict[str, str], visited: set[tuple[int, int]]) -> list[Path]:
    """Add the files below `start`; returns the links to folders (and broken links) there, in order of names."""
    links, waiting = [], [start]
    while waiting:
        current = waiting.pop()
        identity = _identity(current)
        if identity in visited:
            continue
        visited.add(identity)
        try:
            entries = sorted(os.scandir(current), key=lambda entry: entry.name)
        except OSError as error:
            raise DataError(
                f"cannot list {shown(current)}: {error.strerror}",
                needed="a folder this user may read",
                fix="check its permissions, or data.path=OTHER",
            ) from error
        inside = "" if current == folder else current.relative_to(folder).as_posix() + "/"
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if _is_file(entry):
                files[inside + entry.name] = entry.path
            elif entry.is_symlink():
                links.append(current / entry.name)
            elif entry.is_dir():
                waiting.append(current / entry.name)
    return sorted(links)


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:  # a link that this user may not follow
        return False


def _identity(folder: Path) -> tuple[int, int]:
    try:
        found = folder.stat()
    except OSError:
        return (-1, -1)
    return (found.st_dev, found.st_ino)


def _report_links(followed: list[Path], skipped: list[Path]) -> None:
    if followed:
        logger.info("data: followed %d linked folder(s): %s", len(followed), _listing(followed))
    if skipped:
        logger.warning(
            "data: %d link(s) left out, because they are broken or lead to a folder that is read anyway: %s",
            len(skipped),
            _listing(skipped),
        )


def _listing(paths: list[Path]) -> str:
    names = ", ".join(shown(path) for path in paths[:SHOWN])
    return names + (f", and {len(paths) - SHOWN} more" if len(paths) > SHOWN else "")


def missing_path(path: Path) -> DataError:
    """The error for a path that does not exist, listing what its folder contains."""
    parent = path.absolute().parent
    while not parent.is_dir():
        parent = parent.parent
    try:
        names = sorted(entry.name + ("/" if entry.is_dir() else "") for entry in parent.iterdir())
    except OSError:
        names = []
    near = difflib.get_close_matches(path.name, names, n=SHOWN, cutoff=0.5)
    listed = (near + [name for name in names if name not in near])[:SHOWN]
    there = ", ".join(map(shown, listed)) + (f", and {len(names) - len(listed)} more" if len(names) > SHOWN else "")
    broken = "is a link to something that does not exist" if path.is_symlink() else "does not exist"
    return DataError(
        f"{shown(path)} {broken}; in {shown(parent)} there is: {there or 'nothing'}",
        needed="an existing file or folder (relative paths start in the current folder)",
        fix=f"data.path={shown(parent / near[0])}" if near else "data.path=FILE_OR_FOLDER",
    )
