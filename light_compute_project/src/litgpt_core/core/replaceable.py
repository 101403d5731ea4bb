"""May a path be replaced or deleted? Only what is absent, empty, or wholly written by this project.

Everything that removes, renames over or truncates asks here; `tests/unit/test_writing_places.py` lists all such places.
A folder is ours if its `checksums.json` lists every other entry: `--force` on a folder of documents, or on a
checkpoint to which somebody has added a file, is refused and the first foreign entry is named.
"""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from litgpt_core.core.errors import CheckpointError
from litgpt_core.core.parsing import ParsingError, read_json

CHECKSUMS = "checksums.json"
"""`{file: {"bytes": n, "sha256": hex}}` of the other files: in every folder that this project wrote."""
REPORTS = ("compression.json", "compression.png")
"""What a command of this project adds to such a folder afterwards."""
_MAX_FILE_BYTES = 50_000_000


def foreign_entry(folder: Path, *, ours: Collection[str] = ()) -> Path | None:
    """The first entry of a folder that this project did not write, by name; None if there is none, or no folder.

    Args:
        folder: A folder, a link to one (whose entries count), or a path that does not exist. A file is itself foreign.
        ours: Patterns of relative paths, such as `tokenizer/*`, instead of the folder's `checksums.json`.
    """
    if not folder.exists():
        return None
    if not folder.is_dir():
        return folder
    listed = ours or _listed(folder / CHECKSUMS)
    for entry in _entries(folder):
        name = entry.relative_to(folder).as_posix()
        if not any(fnmatch.fnmatchcase(name, pattern) for pattern in listed):
            return entry
    return None


def _entries(folder: Path) -> Iterator[Path]:
    """Files, links and empty folders, at all levels, sorted; one after the other, for folders may be large."""
    for entry in sorted(folder.iterdir()):
        inside = _entries(entry) if entry.is_dir() and not entry.is_symlink() else iter(())
        yield next(inside, entry)
        yield from inside


def _listed(file: Path) -> list[str]:
    """The names in a checksums.json, as patterns; none if it is not one of this project."""
    try:
        content = read_json(file)
    except (OSError, ParsingError):
        return []
    entries = content.items() if isinstance(content, dict) else ()
    if not all(isinstance(entry, dict) and {"bytes", "sha256"} <= entry.keys() for _, entry in entries):
        return []
    return [CHECKSUMS, *REPORTS, *("".join(f"[{c}]" if c in "*?[" else c for c in name) for name, _ in entries)]


def refuse_foreign(path: Path, *, verb: str = "replaced", ours: Collection[str] = ()) -> None:
    """Raise CheckpointError if `path` holds anything that this project did not write. A link is not followed.

    Args:
        path: What is to be replaced or deleted. Only a link would go, not what it points to.
        verb: For the message.
        ours: As for `foreign_entry`.
    """
    found = None if path.is_symlink() else foreign_entry(path, ours=ours)
    if found is not None:
        raise CheckpointError(
            f"{path} is not {verb}: {found} was not written by this project.",
            needed=f"an empty or new folder, or one whose {CHECKSUMS} lists everything in it",
            fix=f"another name; or look at it, and move or delete {path} yourself",
        )


def refuse_foreign_file(path: Path, *, contains: bytes, what: str) -> None:
    """Raise CheckpointError if `path` is there and is not an empty file or one with `contains` in it.

    Args:
        path: A file that is to be overwritten or appended to.
        contains: What every file of this kind contains.
        what: The kind, for the message: `a plot of this project`.
    """
    if not os.path.lexists(path):
        return
    if path.is_file():
        with path.open("rb") as file:
            content = file.read(_MAX_FILE_BYTES)
        if not content or contains in content:
            return
    raise CheckpointError(
        f"{path} is not overwritten: it is not {what}.", needed="a new file", fix="another name, or move it away"
    )


def refuse_taken(target: Path, *, source: Path | Sequence[Path], force: bool, contains: bytes = b"") -> None:
    """Check the target of an import, export or merge before any work is done.

    Args:
        target: The folder or file to make.
        source: What is read.
        force: Replace a target that this project wrote.
        contains: What every file of this kind contains, for a target that is a file: `b"GGUF"`.

    Raises:
        CheckpointError: `target` exists without `force`, holds something foreign, or is or contains a `source`.
    """
    if not os.path.lexists(target):
        return
    place = target.resolve()
    for each in [source] if isinstance(source, Path) else source:
        if place in (each.resolve(), *each.resolve().parents):
            raise CheckpointError(
                f"{target} is or contains the source {each}.", needed="another target", fix="a new name"
            )
    if not force:
        raise CheckpointError(f"{target} already exists.", needed="a new target", fix="another name, or --force")
    if contains and target.is_file():
        refuse_foreign_file(target, contains=contains, what="a file of the same kind")
    else:
        refuse_foreign(target)
