"""Checks the target of an import or export before any work is done."""

from __future__ import annotations

import os
from pathlib import Path

from litgpt_core.core.errors import CheckpointError


def refuse_taken(target: Path, *, source: Path, force: bool) -> None:
    """Raise CheckpointError if `target` exists and must not be replaced, or if it is or contains `source`."""
    if not os.path.lexists(target):
        return
    place = target.resolve()
    if place in (source.resolve(), *source.resolve().parents):
        raise CheckpointError(
            f"{target} is or contains the source {source}.", needed="another target", fix="a new name"
        )
    if not force:
        raise CheckpointError(f"{target} already exists.", needed="a new target", fix="another name, or --force")
