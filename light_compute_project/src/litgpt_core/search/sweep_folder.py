"""Whether a sweep may use the folders it finds: its own, and those of its runs. Nothing is written here."""

from __future__ import annotations

from typing import Any

from litgpt_core.core.errors import ConfigError
from litgpt_core.core.parsing import read_json
from litgpt_core.search.sweep_grid import Point, SweepGrid
from litgpt_core.training.run_folder import RunFolder, is_used, refuse_another_run

DATABASE, RECORD = "sweep.db", "sweep.json"


def known_before(grid: SweepGrid) -> dict[str, Any] | None:
    """The record of the command before.

    Raises:
        ConfigError: There is something else in the folder, or another grid.
    """
    path = grid.folder / RECORD
    try:
        before = read_json(path)
        whole = isinstance(before, dict) and isinstance(before.get("runs"), list) and "axes" in before
    except FileNotFoundError:
        if is_used(grid.folder) and not (grid.folder / DATABASE).is_file():
            raise ConfigError(
                f"{grid.folder} holds something else than a sweep",
                needed=f"a folder for {RECORD}, which is named after the runs",
                fix="another name: run.name=...",
            ) from None
        return None
    except (OSError, ValueError):
        whole = False
    if not whole:
        raise ConfigError(
            f"{path} cannot be read as the record of a sweep",
            needed="what a sweep wrote there",
            fix=f"remove it and {DATABASE}, then the same command with run.resume=auto takes the existing runs in",
        )
    old: dict[str, list[str]] = before["axes"]
    lines = [
        f"{key}: {_values(old.get(key))} -> {_values(grid.axes.get(key))}"
        for key in dict.fromkeys([*old, *grid.axes])
        if sorted(old.get(key) or []) != sorted(grid.axes.get(key) or [])
    ]
    if lines:
        raise ConfigError(
            f"{grid.folder} holds another sweep:\n    " + "\n    ".join(lines),
            needed=f"the same swept values to continue it; it was: {before.get('command', '')}",
            fix=f"a sweep of its own: run.name={_base(grid)}-2",
        )
    return dict(before)


def sessions_before(before: dict[str, Any] | None, point: Point) -> int:
    """How often a point's run was started; earlier versions wrote `sittings`."""
    entries = [entry for entry in (before or {}).get("runs", ()) if entry["name"] == point.name]
    return int(entries[0].get("sessions", entries[0].get("sittings", 0))) if entries else 0


def refuse_foreign_folder(point: Point, *, grid: SweepGrid, sessions: int) -> None:
    """Refuse a run folder that this sweep did not make, unless it is to be taken in, or whose settings are others.

    Raises:
        ConfigError: With another name to type.
    """
    folder = RunFolder(point.config.run.folder)
    if not is_used(folder.path):
        return
    other_name = f"run.name={_base(grid)}-2"
    if sessions == 0 and not grid.resume:
        raise ConfigError(
            f"the run folder {folder.path} is in use, and this sweep did not make it",
            needed="a new name, or permission to include the existing runs in the sweep",
            fix=f"run.resume=auto to take it in, or another name: {other_name}",
        )
    try:
        refuse_another_run(folder, point.config)
    except ConfigError as error:
        raise ConfigError(error.given, needed=error.needed, fix=f"a sweep of its own: {other_name}") from error


def _base(grid: SweepGrid) -> str:
    return grid.name.removesuffix("-sweep")


def _values(values: list[str] | None) -> str:
    return ", ".join(values) if values else "(not swept)"
