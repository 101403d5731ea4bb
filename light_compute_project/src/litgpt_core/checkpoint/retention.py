"""Names, links and pruning of step checkpoints: `step-00000020`, `last`, `best`. Standard library only."""

from __future__ import annotations

import logging
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

from litgpt_core.checkpoint.verification import verify
from litgpt_core.core.directories import (
    find_existing,
    hidden_parts,
    hidden_sibling,
    new_directory,
    remove_directory,
    write_problem,
)
from litgpt_core.core.errors import CheckpointError
from litgpt_core.core.files import flush_directory
from litgpt_core.core.replaceable import foreign_entry

logger = logging.getLogger(__name__)

LAST, BEST = "last", "best"
_STEP = re.compile(r"step-(\d{8,})")


def step_name(step: int) -> str:
    """Folder name of the checkpoint after `step` optimizer steps: `step-00000020`."""
    return f"step-{step:08d}"


def step_of(path: Path) -> int | None:
    """The step in a folder's name, None for any other name."""
    match = _STEP.fullmatch(path.name)
    return int(match[1]) if match else None


def link(directory: Path, name: str) -> Path:
    """Create or replace the link `name` (`last`, `best`) to `directory` in the same folder.

    A relative symbolic link where supported, so that a run folder can be moved; else a folder of hard links or copies.

    Raises:
        CheckpointError: `directory` is not a complete checkpoint, or the folder is not writable.
    """
    directory = Path(directory)
    verify(directory, full=False)
    target = directory.with_name(name)
    try:
        if not _symlink(directory, target):
            with new_directory(target) as folder:
                for file in sorted(directory.iterdir()):
                    _hard_link(file, folder / file.name)
    except OSError as problem:
        size = sum(file.stat().st_size for file in directory.iterdir())
        raise write_problem(target, problem, needed_bytes=size) from problem
    return target


def _symlink(directory: Path, target: Path) -> bool:
    """Replace `target` atomically by a symbolic link; False where links are unsupported or `target` is a folder."""
    if target.is_dir() and not target.is_symlink():
        return False
    temporary = hidden_sibling(target, "tmp")
    try:
        temporary.symlink_to(directory.name, target_is_directory=True)
    except (OSError, NotImplementedError) as problem:
        logger.debug("No symbolic links in %s: %s", target.parent, problem)
        return False
    try:
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    flush_directory(target.parent)
    return True


def _hard_link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
        with target.open("rb+") as copied:
            os.fsync(copied.fileno())


def _steps(folder: Path) -> list[Path]:
    """Step directories, newest first, including those that a killed process left under a temporary name."""
    names = set()
    for entry in folder.iterdir() if folder.is_dir() else ():
        parts = hidden_parts(entry)
        name = parts[0] if parts and parts[1] == "old" else entry.name
        if _STEP.fullmatch(name):
            names.add(name)
    found = (find_existing(folder / name) for name in sorted(names, key=lambda name: int(name[5:]), reverse=True))
    return [path for path in found if path is not None and path.is_dir()]


def newest_valid(folder: Path) -> Path | None:
    """The newest step directory in `folder` whose files all have the correct hash, None if there is none.

    Corrupted or incomplete ones are skipped with a warning that names the file and the reason.
    """
    return next(filter(_check("Skipping", full=True), _steps(Path(folder))), None)


def prune(folder: Path, *, keep: int) -> list[Path]:
    """Delete old step directories except for the newest `keep` complete ones and the targets of `last` and `best`.

    Corrupted or incomplete ones are not counted and not deleted, but reported in a warning; so are those that hold a
    file that this project did not write, which are not deleted either.

    Returns:
        The deleted directories.

    Raises:
        CheckpointError: A directory could not be removed.
        ValueError: `keep` is below 1.
    """
    if keep < 1:
        raise ValueError(f"keep must be at least 1, not {keep}")
    folder = Path(folder)
    linked = {(folder / name).resolve() for name in (LAST, BEST) if (folder / name).exists()}
    complete = list(filter(_check("Not deleting", full=False), _steps(folder)))
    old = [path for path in complete[keep:] if path.resolve() not in linked]
    ours = []
    for path in old:
        if (foreign := foreign_entry(path)) is not None:
            logger.warning("Not deleting the old checkpoint %s: %s was not written by this project", path, foreign.name)
            continue
        ours.append(path)
        try:
            remove_directory(path)
        except OSError as problem:
            raise CheckpointError(
                f"Could not delete the old checkpoint {path}: {problem.strerror}.",
                needed=f"permission to write in {folder}",
                fix=f"delete it manually, or change the permissions of {folder}",
            ) from problem
    return ours


def _check(verb: str, *, full: bool) -> Callable[[Path], bool]:
    def is_valid(path: Path) -> bool:
        try:
            verify(path, full=full)
        except CheckpointError as problem:
            logger.warning("%s the corrupted or incomplete checkpoint %s: %s", verb, path, problem)
            return False
        return True

    return is_valid
