"""How every export is written: under a temporary name, compared, then put in place; nothing is left where it fails."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from litgpt_core.core.directories import new_directory
from litgpt_core.core.errors import CheckpointError
from litgpt_core.core.files import replacing, sha256_of
from litgpt_core.core.replaceable import CHECKSUMS, refuse_foreign_file, refuse_taken
from litgpt_core.export.parity import MARK, Parity, record_of


def refuse_used(target: Path, *, source: Path, force: bool, contains: bytes) -> None:
    """Raise CheckpointError if the file `target`, or the record that lies alongside it, must not be written.

    Args:
        target, source, force, contains: As for `replaceable.refuse_taken`.
    """
    refuse_taken(target, source=source, force=force, contains=contains)
    refuse_foreign_file(record_of(target), contains=MARK, what="a parity record of this project")


def export_file(
    target: Path, write: Callable[[Path], object], *, check: Callable[[Path], Parity] | None, n_bytes: int
) -> Parity | None:
    """Write `target`, with a record of the comparison alongside.

    Args:
        target: The file.
        write: Writes it at another path.
        check: Reads what was written there, and compares; None leaves the check out.
        n_bytes: About how many it needs.

    Raises:
        CheckpointError: It cannot be written, or does not compute the same.
    """
    parity = None
    with _writable(target, n_bytes=n_bytes), replacing(target, durable=True) as temporary:
        write(temporary)
        if check is not None:
            parity = check(temporary)
            parity.refuse(target)
    if parity is not None:
        parity.keep(target)
    return parity


@contextmanager
def export_folder(target: Path, *, n_bytes: int) -> Iterator[Path]:
    """Yield an empty folder that takes the name `target` when the block ends well, with checksums of all its files.

    Raises:
        CheckpointError: It cannot be written.
    """
    with _writable(target, n_bytes=n_bytes), new_directory(target) as folder:
        yield folder
        files = sorted(each for each in folder.rglob("*") if each.is_file())
        facts = {
            each.relative_to(folder).as_posix(): {"bytes": each.stat().st_size, "sha256": sha256_of(each)}
            for each in files
        }
        sums = folder / CHECKSUMS
        sums.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
        for each in [*files, sums]:
            shutil.copymode(sums, each)  # safetensors creates files that only the user can read
            with each.open("rb+") as opened:  # what another library wrote survives a power failure, too
                os.fsync(opened.fileno())


@contextmanager
def _writable(target: Path, *, n_bytes: int) -> Iterator[None]:
    try:
        yield
    except (OSError, SafetensorError) as problem:
        raise CheckpointError(
            f"Could not write {target}: {problem}. What was there before is unchanged.",
            needed=f"a writable place with {n_bytes:,} bytes free",
            fix="free disk space, change permissions, or write to another place: --out PLACE",
        ) from problem
