"""Resolves a path (a directory, its weights file, a run folder) to a checkpoint directory. Does not import torch."""

from __future__ import annotations

import logging
from pathlib import Path

from litgpt_core.checkpoint.layout import COMPRESSED, WEIGHTS
from litgpt_core.checkpoint.retention import LAST, newest_valid
from litgpt_core.checkpoint.verification import is_sharded, verify, weights_file
from litgpt_core.core.directories import find_existing
from litgpt_core.core.errors import CheckpointError
from litgpt_core.core.text import close_names

logger = logging.getLogger(__name__)


def resolve(path: Path) -> Path:
    """Resolve `path` to a checkpoint directory.

    Args:
        path: A directory with `lit_model.pth` (or compressed weights, or the shards of a sharded checkpoint), that file
            itself, a folder of
            checkpoints, or a run folder. For a run folder the result is `final/`, else `checkpoints/last`, else the
            newest valid `checkpoints/step-*`.

    Raises:
        CheckpointError: There is no checkpoint; lists what is there, and similar names if `path` does not exist.
    """
    path = Path(path)
    if path.is_file() and path.name in (WEIGHTS, COMPRESSED):
        return path.parent
    found = find_existing(path)
    if found is None:
        raise _no_such_path(path)
    if weights_file(found).exists() or is_sharded(found):
        return found
    if found.is_dir():
        final = find_existing(found / "final")
        if final is not None and weights_file(final).is_file():
            return final
        for folder in (found / "checkpoints", found):
            if (checkpoint := _last(folder)) is not None:
                return checkpoint
    raise CheckpointError(
        f"{path} holds no checkpoint; {_contents(found)}.",
        needed=f"a directory with {WEIGHTS}, or a run folder with final/ or checkpoints/ in it",
        fix="give a path such as runs/<run.name>/final",
    )


def _last(folder: Path) -> Path | None:
    last = find_existing(folder / LAST)
    if last is not None:
        try:
            verify(last, full=False)
            return last
        except CheckpointError as problem:
            logger.warning("Skipping %s: %s", last, problem.given)
    return newest_valid(folder)


def _no_such_path(path: Path) -> CheckpointError:
    """Names the first component of the path that does not exist, and lists its folder."""
    missing = path
    while not missing.parent.exists() and missing.parent != missing:
        missing = missing.parent
    siblings = _names(missing.parent)
    near = close_names(missing.name, [name for name in siblings if not name.endswith(".lock")], cutoff=0.5)
    suggestion = " or ".join(str(missing.parent / name) for name in near)
    return CheckpointError(
        f"{path} does not exist; {_contents(missing.parent)}.",
        needed="a checkpoint directory or a run folder",
        fix=f"did you mean {suggestion}?" if near else "train first, or check the path",
    )


def _names(folder: Path) -> list[str]:
    if not folder.is_dir():
        return []
    return sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))


def _contents(folder: Path, *, limit: int = 12) -> str:
    if folder.is_file():
        return "it is a file"
    names = _names(folder)
    shown = ", ".join(names[:limit]) + (f", and {len(names) - limit} more" if len(names) > limit else "")
    return f"{folder} contains {shown or 'nothing'}"
