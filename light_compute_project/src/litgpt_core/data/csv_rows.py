"""The rows of a CSV or TSV file with a header, as spreadsheets and data set viewers save them.

Not here: what the columns mean (`chat_formats`).
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import PurePath
from typing import Any

from litgpt_core.core.parsing import ParsingError, parse_json
from litgpt_core.data.json_values import MAX_ROW_BYTES, UnusableError, as_utf8, json_values

_PACKED = (".gz", ".bz2", ".xz", ".zst")
_HEADER_BYTES = 1 << 16


def file_rows(raw: bytes, name: str) -> Iterator[tuple[str, Any]]:
    """(place, row) for every row of a file: CSV by the name, else JSON; an UnusableError in a row's place says why it
    cannot be read.

    Args:
        raw: All bytes of the file, unpacked.
        name: Of the file, with or without its folder.
    """
    yield from csv_rows(raw) if is_csv(name) else json_values(raw)


def is_csv(name: str) -> bool:
    """Whether a file is CSV or TSV by its name, compressed or not."""
    path = PurePath(name)
    return PurePath(path.stem if path.suffix in _PACKED else path.name).suffix.lower() in (".csv", ".tsv")


def csv_rows(raw: bytes) -> Iterator[tuple[str, Any]]:
    """(place, row) where a row is {column: cell}; a cell that is a JSON array of messages is read as one.

    Commas, semicolons or tabs separate cells: whichever the header has most of.
    """
    try:
        text = as_utf8(raw).decode("utf-8")
    except UnicodeDecodeError as problem:
        yield "the file", UnusableError(f"it is not {problem.encoding} (byte offset {problem.start:,})")
        return
    header = text[:_HEADER_BYTES].lstrip().split("\n", 1)[0]
    csv.field_size_limit(max(csv.field_size_limit(), MAX_ROW_BYTES))
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=header.count), strict=True)
    columns: list[str] | None = None
    while True:
        begins = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as problem:
            yield f"line {begins}", UnusableError(f"it is not CSV ({problem}); nothing after it is read")
            return
        if cells is None:
            return
        if not any(cell.strip() for cell in cells):
            continue
        if columns is None:
            columns = [cell.strip() for cell in cells]
        elif len(cells) != len(columns):
            yield f"line {begins}", UnusableError(f"it has {len(cells)} cells, and the header {len(columns)}")
        else:
            yield f"line {begins}", {column: _value(cell) for column, cell in zip(columns, cells, strict=True)}


def _value(cell: str) -> Any:
    """The cell's text, or the list that its text is in JSON."""
    if cell.startswith("[{"):
        try:
            return parse_json(cell.encode("utf-8"), max_bytes=MAX_ROW_BYTES)
        except ParsingError:
            return cell
    return cell
