"""A sweep's folder, `runs/NAME-sweep/`: which runs it has, how far each is, and whether a grid typed again is the same.

`sweep.json` is written whole after every change, so that a killed sweep knows where it was.
"""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from litgpt_core.core.errors import ConfigError
from litgpt_core.runs.result import is_done, result_of
from litgpt_core.search.child_process import Ending
from litgpt_core.search.sweep_grid import Grid, Point
from litgpt_core.training.run_folder import RunFolder, is_used, refuse_another_run, write_json

logger = logging.getLogger(__name__)

State = Literal["waiting", "running", "done", "stopped", "diverged", "failed"]
"""stopped: saved before its last step, by a signal or a budget; diverged: its numbers blew up; failed: anything
else.
"""


@dataclass(kw_only=True)
class Entry:
    """How far one run of the sweep is."""

    name: str
    values: dict[str, str]
    overrides: list[str]
    state: State = "waiting"
    sittings: int = 0
    """How often it was started."""
    exit_code: int | None = None
    problem: str = ""
    """First line of the error that ended it."""
    result: dict[str, Any] = field(default_factory=dict)
    """`val_loss` and `val_bpb` over the whole split, `best_val_loss`, `step`, `tokens`, `train_s`, `n_params`."""


class SweepRecord:
    """The runs of one sweep and their states.

    Args:
        grid: What was typed.
        command: The words of it.
        entries: One for each point, in its order.
    """

    def __init__(self, grid: Grid, *, command: str, entries: list[Entry]) -> None:
        self.grid, self.command, self.entries = grid, command, entries

    @property
    def path(self) -> Path:
        """`sweep.json`."""
        return self.grid.folder / SWEEP_FILE

    @property
    def metric(self) -> str:
        """What runs are compared by: bits per byte where the tokenizer is swept, else the loss."""
        return "val_bpb" if any(key.split(".")[0] == "tokenizer" for key in self.grid.axes) else "val_loss"

    @property
    def unfinished(self) -> list[tuple[Point, Entry]]:
        """What is left to do; a run that diverged would do so again."""
        pairs = zip(self.grid.points, self.entries, strict=True)
        return [(point, entry) for point, entry in pairs if entry.state not in ("done", "diverged")]

    @property
    def exit_code(self) -> int:
        """Of the first run that did not end well."""
        return next((e.exit_code or 1 for e in self.entries if e.state in ("diverged", "failed")), 0)

    def started(self, entry: Entry) -> None:
        """Note that a run is started now."""
        entry.state, entry.sittings, entry.exit_code, entry.problem = "running", entry.sittings + 1, None, ""
        self.write()

    def ended(self, point: Point, entry: Entry, *, ending: Ending) -> None:
        """Note how a run ended, and what its folder holds."""
        entry.exit_code = ending.exit_code
        entry.problem = ending.message.partition("\n")[0]
        entry.result = result_of(point.config)
        if ending.exit_code == 0:
            entry.state = "done" if is_done(point.config) else "stopped"
        elif ending.stopped:
            entry.state = "stopped"
        else:
            entry.state = "diverged" if ending.diverged else "failed"
        self.write()

    def write(self, **more: Any) -> None:
        """Write `sweep.json`."""
        content = {
            "name": self.grid.name,
            "command": self.command,
            "axes": self.grid.axes,
            "metric": self.metric,
            "runs": [asdict(entry) for entry in self.entries],
        }
        write_json(self.path, {**content, **more})


SWEEP_FILE = "sweep.json"


def open_sweep(grid: Grid, *, command: str) -> SweepRecord:
    """The record of a new sweep, or of the one that is continued.

    Raises:
        ConfigError: The folder holds another grid; or a run's folder is in use by something else, or by other settings.
    """
    path = grid.folder / SWEEP_FILE
    before = _read(path)
    if before is None and is_used(grid.folder):
        raise ConfigError(
            f"{grid.folder} holds something else than a sweep",
            needed="a folder for sweep.json, which is named after the runs",
            fix="another name: run.name=...",
        )
    known: dict[str, Entry] = {}
    if before is not None:
        _refuse_another_grid(before, grid)
        known = {entry["name"]: Entry(**entry) for entry in before["runs"]}
    entries = [known.get(p.name) or Entry(name=p.name, values=p.values, overrides=p.overrides) for p in grid.points]
    for point, entry in zip(grid.points, entries, strict=True):
        _look_again(point, entry, grid=grid)
    return SweepRecord(grid, command=command, entries=entries)


def _look_again(point: Point, entry: Entry, *, grid: Grid) -> None:
    """Bring an entry in line with the run's folder, which may know more than a killed sweep wrote down."""
    folder, entry.overrides = RunFolder(point.config.run.folder), point.overrides
    if is_used(folder.path):
        other_name = f"run.name={_base(grid)}-2"
        if entry.sittings == 0 and not grid.resume:
            raise ConfigError(
                f"the run folder {folder.path} is in use, and this sweep did not make it",
                needed="a new name, or the wish to take what is there into the sweep",
                fix=f"run.resume=auto to take it in, or another name: {other_name}",
            )
        try:
            refuse_another_run(folder, point.config)
        except ConfigError as error:
            raise ConfigError(error.given, needed=error.needed, fix=f"a sweep of its own: {other_name}") from error
    if is_done(point.config):
        entry.state, entry.exit_code, entry.problem = "done", 0, ""
        entry.sittings, entry.result = max(entry.sittings, 1), result_of(point.config)
    elif entry.state == "done":
        entry.state, entry.result = ("stopped" if is_used(folder.path) else "waiting"), {}
    elif entry.state == "diverged" and not is_used(folder.path):
        entry.state = "waiting"


def _refuse_another_grid(before: dict[str, Any], grid: Grid) -> None:
    old: dict[str, list[str]] = before["axes"]
    lines = [
        f"{key}: {_values(old.get(key))} -> {_values(grid.axes.get(key))}"
        for key in [*old, *(key for key in grid.axes if key not in old)]
        if sorted(old.get(key) or []) != sorted(grid.axes.get(key) or [])
    ]
    if lines:
        raise ConfigError(
            f"{grid.folder} holds another sweep:\n    " + "\n    ".join(lines),
            needed=f"the same swept values to continue it; it was: {before.get('command', '')}",
            fix=f"a sweep of its own: run.name={_base(grid)}-2",
        )


def _base(grid: Grid) -> str:
    return grid.name.removesuffix("-sweep")


def _values(values: list[str] | None) -> str:
    return ", ".join(values) if values else "(not swept)"


def _read(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        content = None
    if not isinstance(content, dict) or not isinstance(content.get("runs"), list) or "axes" not in content:
        raise ConfigError(
            f"{path} cannot be read as the record of a sweep",
            needed="what a sweep wrote there",
            fix="remove it, then the same command with run.resume=auto takes in the runs that are there",
        )
    return content
