"""Reading `metrics.jsonl`, whole or while a run writes it. Writing it is `metrics.py`'s work. Standard library only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from litgpt_core.core.parsing import parse_json

Row = dict[str, Any]


def read_rows(path: Path) -> list[Row]:
    """Rows of a `metrics.jsonl`; an incomplete last line, which a kill can leave, is skipped."""
    rows = []
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                rows.append(parse_json(line))
            except ValueError:
                continue
    return rows


def curve(rows: list[Row], key: str) -> list[tuple[int, float]]:
    """`(step, value)` of the rows that have one."""
    return [(int(row["step"]), float(row[key])) for row in rows if row.get(key) is not None]


class GrowingCurve:
    """One key of a `metrics.jsonl` that somebody else writes; the file may be absent, and may be written anew.

    Args:
        path: The file.
        key: For example `val_loss`.
    """

    def __init__(self, path: Path, *, key: str) -> None:
        self.path, self.key = path, key
        self._seen: tuple[int, int, int] | None = None
        self._last_step = -1

    def new_values(self) -> list[tuple[int, float]]:
        """`(step, value)` of the rows beyond the last step that was handed out, in order."""
        try:
            facts = self.path.stat()
        except FileNotFoundError:
            return []
        state = (facts.st_ino, facts.st_size, facts.st_mtime_ns)
        if state == self._seen:
            return []
        self._seen = state
        found = [(step, value) for step, value in curve(read_rows(self.path), self.key) if step > self._last_step]
        if found:
            self._last_step = found[-1][0]
        return found
