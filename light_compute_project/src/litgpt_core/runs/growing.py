"""Rows of `metrics.jsonl` files that other processes append to: only what is new is read."""

from __future__ import annotations

import os
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path

from litgpt_core.core.parsing import parse_json
from litgpt_core.training.rows import Row

MOST_BYTES = 64_000_000
"""Of one file; what lies behind is not read."""
MOST_ROWS = 150_000
"""Of all files together; the files that were requested longest ago are forgotten first."""


@dataclass(kw_only=True)
class _File:
    inode: int = -1
    end: int = 0
    """Bytes up to the end of the last complete line that was read."""
    last: bytes = b""
    """That line: a file that does not hold it any more in its place was written anew."""
    rows: list[Row] = field(default_factory=list)


class GrowingRows:
    """A memory of files and their rows: those of `training.rows.read_rows`, whose complete lines end in a line end."""

    def __init__(self) -> None:
        self._files: OrderedDict[Path, _File] = OrderedDict()

    def read(self, path: Path) -> list[Row]:
        """The rows of a file, in order; none if it cannot be read. Lines that are no JSON objects are skipped."""
        known = self._files.pop(path, _File())
        try:
            known = _continued(path, known)
        except OSError:
            return []
        self._files[path] = known
        total = sum(len(each.rows) for each in self._files.values())
        while total > MOST_ROWS and len(self._files) > 1:
            total -= len(self._files.popitem(last=False)[1].rows)
        return known.rows


def _continued(path: Path, known: _File) -> _File:
    with path.open("rb") as file:
        inode = os.fstat(file.fileno()).st_ino
        same = inode == known.inode and known.end > 0
        if same:
            file.seek(known.end - len(known.last))
            same = file.read(len(known.last)) == known.last
        if not same:
            known = _File(inode=inode)
            file.seek(0)
        new = file.read(max(0, MOST_BYTES - known.end))
    end = new.rfind(b"\n") + 1
    lines = new[:end].splitlines(keepends=True)
    rows = [row for row in map(_row, lines) if row is not None]
    last = lines[-1] if lines else known.last
    return _File(inode=known.inode, end=known.end + end, last=last, rows=[*known.rows, *rows] if rows else known.rows)


def _row(line: bytes) -> Row | None:
    try:
        row = parse_json(line, max_bytes=1_000_000)
    except ValueError:
        return None
    return row if isinstance(row, dict) else None
