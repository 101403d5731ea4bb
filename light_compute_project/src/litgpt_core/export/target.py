"""Where an import or an export goes: taken places are refused before any work is done."""

from __future__ import annotations

import os
from pathlib import Path

from litgpt_core.core.errors import CheckpointError


def refuse_taken(target: Path, *, source: Path, force: bool) -> None:
    """CheckpointError where something is at `target` and may not be replaced; never may `source`, or what holds it."""
    if not os.path.lexists(target):
        return
    place = target.resolve()
    if place in (source.resolve(), *source.resolve().parents):
        raise CheckpointError(
            f"{target} is or holds {source}, which is read.", needed="another place", fix="a new name"
        )
    if not force:
        raise CheckpointError(f"{target} exists already.", needed="a new place", fix="another name, or --force")
