"""Whether another user of this machine may have written a file: before code from it is loaded. POSIX only."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path


def shared_with(path: Path) -> str:
    """Why another user may have written `path`, or replaced it, as a clause; empty if only this user and root can.

    Looked at are `path` and every folder above it: its owner, the rights of group and others, links. A folder above
    with the sticky bit, such as /tmp, is fine: only a file's owner can replace it there. The rights of a group that
    has the user's name and no other member are fine too. Where files have no owners (Windows) the answer is empty.

    Raises:
        OSError: `path` does not exist.
    """
    if sys.platform == "win32":
        return ""
    absolute = Path(path).absolute()
    for place in (absolute, *absolute.resolve().parents):
        status = place.lstat()
        if stat.S_ISLNK(status.st_mode):
            return f"{place} is a link"
        if status.st_uid not in (0, os.getuid()):
            return f"{place} belongs to another user"
        sticky = place != absolute and bool(status.st_mode & stat.S_ISVTX)
        group = status.st_mode & stat.S_IWGRP and not _own_group(status.st_gid)
        if (status.st_mode & stat.S_IWOTH or group) and not sticky:
            return f"others may write to {place}"
    return ""


def _own_group(group: int) -> bool:
    """Whether this user alone is in a group: many systems give every user one of the same name."""
    import grp
    import pwd

    try:
        name, found = pwd.getpwuid(os.getuid()).pw_name, grp.getgrgid(group)
    except KeyError:
        return False
    return found.gr_name == name and set(found.gr_mem) <= {name}
