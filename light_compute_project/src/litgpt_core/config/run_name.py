"""What a run is called that nobody has named: after its experiment, else after its data file, else by a number."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

UNNAMED = "run"
"""Base of numbered names: `run-1`, `run-2`, ..."""


def named(plain: dict[str, Any], *, experiment: str | None, numbered: bool) -> dict[str, Any]:
    """A composed config with a value for `run.name` where it has none.

    Args:
        plain: The composed config.
        experiment: The chosen experiment, if there is one.
        numbered: Whether a run without experiment and data file gets the next free number; without it, `run`.
    """
    run, data = plain.get("run"), plain.get("data")
    if not isinstance(run, dict) or run.get("name", "") is not None:
        if isinstance(run, dict) and type(run.get("name")) is int:  # `name: 2024` in a YAML file
            return {**plain, "run": {**run, "name": str(run["name"])}}
        return plain
    path = data.get("path") if isinstance(data, dict) else None
    name = experiment or (_of_file(path) if isinstance(path, str) and path != "???" else "")
    if not name:
        name = _next_number(Path(str(run.get("dir"))).expanduser(), resume=run.get("resume")) if numbered else UNNAMED
    return {**plain, "run": {**run, "name": name}}


def _of_file(path: str) -> str:
    """`/texts/My Text.v2.txt` -> `My-Text.v2`; empty where no letter is left."""
    file = Path(path)
    stem = file.name.removesuffix(".gz") if file.name != ".." else file.resolve().name
    stem = (file.resolve().name if stem in ("", ".") else stem).removesuffix(Path(stem).suffix)
    return re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-._")


def _next_number(folder: Path, *, resume: Any) -> str:
    """The first number above all that are there; the last one itself where it is to be continued."""
    pattern = re.compile(rf"{UNNAMED}-(\d+)")
    names = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
    last = max((int(found[1]) for name in names if (found := pattern.fullmatch(name))), default=0)
    return f"{UNNAMED}-{last if resume and last else last + 1}"
