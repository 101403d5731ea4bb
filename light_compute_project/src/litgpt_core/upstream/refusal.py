"""The error of this package, and how it lists paths."""

from __future__ import annotations

from litgpt_core.core.errors import LightComputeError


class SyncRefused(LightComputeError):
    """The operation is not possible; HEAD, refs, index and work tree are unchanged. Names the reason and the fix."""


MOST_NAMES = 12
"""Maximum number of paths in a message; the rest is only counted."""


def listed(paths: list[str]) -> str:
    """Paths as lines of a message: the first few, then how many more."""
    lines = [f"\n    {shown(path)}" for path in paths[:MOST_NAMES]]
    if len(paths) > MOST_NAMES:
        lines.append(f"\n    and {len(paths) - MOST_NAMES} more")
    return "".join(lines)


def shown(path: str) -> str:
    """A path for display: quoted as in Python if it contains characters that a terminal could misinterpret."""
    return path if path.isprintable() and not path.startswith(("'", '"')) and path == path.strip() else ascii(path)
