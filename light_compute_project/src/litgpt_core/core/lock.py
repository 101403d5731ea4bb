"""One process at a time does some work; the others wait. The operating system releases the lock when its holder
dies.

Not a guarantee: a file system without locks lets everybody in (with a log line), so the work must be safe without it.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

logger = logging.getLogger(__name__)

_POLL_SECONDS = 0.1
_HELD_ELSEWHERE = (errno.EACCES, errno.EAGAIN, errno.EDEADLK)


@contextlib.contextmanager
def exclusive(path: Path, *, purpose: str, keep: bool = False) -> Iterator[bool]:
    """Hold the lock file `path` (made when absent, removed afterwards) while the block runs.

    Args:
        path: The lock file.
        purpose: What for, for log lines.
        keep: Leave the file there. Without it, someone who waits for a file that is then removed and someone who makes
            it anew may both get in: use it where the work is not safe without the lock.

    Yields:
        True while the lock is held, False where the file system has no locks.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o600)
    try:
        held = _acquire(handle, path, purpose=purpose)
        try:
            yield held
        finally:
            if not keep:
                with contextlib.suppress(OSError):  # Windows does not remove an open file
                    path.unlink()
    finally:
        os.close(handle)


def _acquire(handle: int, path: Path, *, purpose: str) -> bool:
    start, told = time.perf_counter(), False
    while True:
        try:
            _try_lock(handle)
        except OSError as error:
            if error.errno not in _HELD_ELSEWHERE:
                logger.warning("no file lock at %s (%s): going on without, for %s", path, error.strerror, purpose)
                return False
            if not told:
                logger.info("waiting for another process: %s", purpose)
                told = True
            time.sleep(_POLL_SECONDS)
            continue
        if told:
            logger.info("waited %.1f s for another process: %s", time.perf_counter() - start, purpose)
        return True


if sys.platform == "win32":
    import msvcrt

    def _try_lock(handle: int) -> None:
        os.lseek(handle, 0, os.SEEK_SET)
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _try_lock(handle: int) -> None:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
