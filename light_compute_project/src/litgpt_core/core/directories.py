"""Folders that appear whole or not at all: write beside, flush, rename. It knows nothing of what is inside; no torch.

A folder in the making is `.<name>.tmp-<pid>-<random>`; a folder that is being replaced is `.<name>.old-<pid>-<random>`
for the moment between two renames. Whoever is killed in that moment leaves the old folder complete under the second
name: `find_existing` and `clean_temporary` know it.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import platform
import re
import secrets
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from litgpt_core.core.errors import CheckpointError
from litgpt_core.core.files import flush_directory
from litgpt_core.core.replaceable import refuse_foreign

logger = logging.getLogger(__name__)

_HIDDEN = re.compile(
    r"\.(?P<name>.+)\.(?P<kind>tmp|old)-(?P<pid>\d{1,10})-(?P<host>[0-9a-f]{6})(?P<random>[0-9a-f]{6})"
)
_FOREIGN_HOST_PATIENCE_S = 24 * 3600
_in_use: set[str] = set()
"""Hidden names that this process works on. Its number alone proves nothing: containers hand out the same ones."""


def _host() -> str:
    return hashlib.sha256(platform.node().encode()).hexdigest()[:6]


def hidden_sibling(path: Path, kind: Literal["tmp", "old"]) -> Path:
    """A fresh hidden name beside `path`; its random part starts with a hash of the host, whose process number it is."""
    return path.with_name(f".{path.name}.{kind}-{os.getpid()}-{_host()}{secrets.token_hex(3)}")


@contextmanager
def new_directory(path: Path) -> Iterator[Path]:
    """Yield an empty hidden folder that takes the name `path` when the block ends well, and vanishes when it does not.

    The caller flushes the files it writes; the folder and its parent are flushed here. OSError passes through;
    CheckpointError if `path` is there and holds something that this project did not write.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = hidden_sibling(path, "tmp")
    _in_use.add(temporary.name)
    try:
        temporary.mkdir()
        yield temporary
        flush_directory(temporary)
        put_in_place(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    finally:
        _in_use.discard(temporary.name)


def put_in_place(new: Path, path: Path) -> None:
    """Rename `new` to `path`. What was there before (a folder of ours, a link, nothing) goes only once the new one
    stands. CheckpointError if it is not ours.
    """
    refuse_foreign(path)
    aside = hidden_sibling(path, "old")
    _in_use.add(aside.name)
    try:
        if os.path.lexists(path):
            path.rename(aside)
        new.rename(path)
    except BaseException:
        if os.path.lexists(aside) and not os.path.lexists(path):
            aside.rename(path)
        raise
    finally:
        _in_use.discard(aside.name)
    flush_directory(path.parent)
    remove(aside)


def remove(path: Path) -> None:
    """Delete a folder or a link if it exists; leftovers that cannot be deleted are logged, because they harm nobody."""
    try:
        if path.is_symlink():
            path.unlink()
        elif path.exists():
            shutil.rmtree(path)
    except OSError as problem:
        logger.warning("Could not delete %s: %s", path, problem)


def remove_directory(path: Path) -> None:
    """Delete a folder of ours such that nobody sees it half deleted: it loses its name first.

    OSError where it cannot be; CheckpointError if it holds something that this project did not write.
    """
    refuse_foreign(path, verb="deleted")
    hidden = hidden_sibling(path, "tmp")
    path.rename(hidden)
    remove(hidden)


def hidden_parts(path: Path) -> tuple[str, Literal["tmp", "old"]] | None:
    """`(name, kind)` of a hidden folder made here, None for any other path."""
    match = _HIDDEN.fullmatch(path.name)
    return (match["name"], "old" if match["kind"] == "old" else "tmp") if match else None


def find_existing(path: Path) -> Path | None:
    """`path` if it exists, else the whole folder that a killed process had moved aside from there, else None."""
    if path.exists():
        return path
    if not path.parent.is_dir():
        return None
    aside = [entry for entry in path.parent.iterdir() if hidden_parts(entry) == (path.name, "old") and entry.exists()]
    return max(aside, key=lambda entry: entry.stat().st_mtime, default=None)


def clean_temporary(parent: Path) -> list[Path]:
    """Tidy up after processes that were killed while saving into `parent`; folders of living processes are left alone.

    An unfinished folder is deleted. A folder that had been moved aside gets its name back if nothing took its place,
    and is deleted otherwise. What a process on another host left is touched after a day.

    Returns:
        The hidden folders that are gone now.
    """
    gone = []
    for entry in sorted(parent.iterdir()) if parent.is_dir() else ():
        match = _HIDDEN.fullmatch(entry.name)
        if match is None or not _abandoned(entry, pid=int(match["pid"]), host=match["host"]):
            continue
        rightful = parent / match["name"]
        if match["kind"] == "old" and not os.path.lexists(rightful):
            entry.rename(rightful)
            logger.warning("%s was being replaced when its process died: restored under its original name", rightful)
        else:
            remove(entry)
        gone.append(entry)
    return gone


def _abandoned(entry: Path, *, pid: int, host: str) -> bool:
    if host != _host():
        return time.time() - entry.lstat().st_mtime > _FOREIGN_HOST_PATIENCE_S
    return entry.name not in _in_use if pid == os.getpid() else not _alive(pid)


def _alive(pid: int) -> bool:
    if sys.platform == "win32":  # os.kill(pid, 0) would send Ctrl-C there
        import ctypes

        handle = ctypes.windll.kernel32.OpenProcess(0x1000, False, pid)
        if not handle:
            return bool(ctypes.windll.kernel32.GetLastError() == 5)
        code = ctypes.c_ulong()
        ctypes.windll.kernel32.GetExitCodeProcess(handle, ctypes.byref(code))
        ctypes.windll.kernel32.CloseHandle(handle)
        return code.value == 259
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def write_problem(path: Path, problem: OSError, *, needed_bytes: int) -> CheckpointError:
    """Say why `path` could not be written: what the system answered, what it takes, and what to type."""
    place = next((folder for folder in (path.parent, *path.parent.parents) if folder.is_dir()), Path.cwd())
    reason = f"{problem.strerror or problem} [{errno.errorcode.get(problem.errno or 0, 'unknown')}]"
    needed = f"a place where {needed_bytes:,} bytes can be written"
    if problem.errno in (errno.ENOSPC, errno.EDQUOT):
        free = shutil.disk_usage(place).free
        needed = f"about {needed_bytes:,} bytes; {free:,} bytes are free on the disk of {place}"
    elif problem.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        needed = f"permission to write in {place}, and about {needed_bytes:,} bytes"
    elif problem.errno in (errno.ENOTDIR, errno.EEXIST):
        needed = f"a path whose parents are folders; {place} is the last one that is"
    return CheckpointError(
        f"Could not write the checkpoint {path}: {reason}. What was there before is untouched.",
        needed=needed,
        fix="make room or rights there, or write to another disk: run.dir=/other/disk",
    )
