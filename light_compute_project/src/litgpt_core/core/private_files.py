"""Files with what people said: readable by this user alone, and never written through a link."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path
from typing import IO

PRIVATE = 0o600
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)


def open_private(path: Path, *, tighten: bool = False) -> IO[bytes]:
    """Open a file for reading and writing at any place, its content kept; made with the rights 0600 if absent.

    Args:
        path: A regular file, or where nothing is.
        tighten: Take the rights of group and others from a file of this user that is there.

    Raises:
        OSError: `path` is a link or no regular file, or it cannot be opened.
    """
    flags = os.O_RDWR | os.O_CREAT | _NO_LINK | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    handle = os.open(path, flags | getattr(os, "O_NONBLOCK", 0), PRIVATE)
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(f"{path} is not a regular file")
        if tighten and sys.platform != "win32" and status.st_uid == os.getuid() and status.st_mode & 0o077:
            os.fchmod(handle, PRIVATE)
        return os.fdopen(handle, "r+b")
    except BaseException:
        os.close(handle)
        raise
