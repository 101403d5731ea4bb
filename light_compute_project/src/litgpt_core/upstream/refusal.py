"""The one error of this room, for the person who typed the command."""

from __future__ import annotations

from litgpt_core.core.errors import LightComputeError


class SyncRefused(LightComputeError):
    """Nothing was done, and HEAD, refs, index and work tree are as they were: what stands against it, what to type."""


MOST_NAMES = 12
"""A message names so many paths and counts the rest."""


def listed(paths: list[str]) -> str:
    """Paths as lines of a message: the first few, then how many more."""
    lines = [f"\n    {shown(path)}" for path in paths[:MOST_NAMES]]
    if len(paths) > MOST_NAMES:
        lines.append(f"\n    and {len(paths) - MOST_NAMES} more")
    return "".join(lines)


def shown(path: str) -> str:
    """A path for people: in Python's quotes if it holds anything that a terminal could misread."""
    return path if path.isprintable() and not path.startswith(("'", '"')) and path == path.strip() else ascii(path)
