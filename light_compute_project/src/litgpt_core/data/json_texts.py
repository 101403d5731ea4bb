"""Texts in the rows of JSON and CSV files, as corpora for pretraining are published: `{"text": ...}` per line."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping

from litgpt_core.core.errors import DataError
from litgpt_core.data.csv_rows import csv_rows, file_rows, is_csv
from litgpt_core.data.json_values import UnusableError, json_values

logger = logging.getLogger(__name__)

_USUAL = ("text", "content")
_LOOKED_AT = 1 << 20


def row_texts(text: str, *, key: str, name: str) -> Iterator[tuple[str, str]]:
    """(name of the row, its text) for every row with text under `key`; others are counted in a warning.

    Args:
        text: A file's content: JSONL, one array, objects over several lines, or CSV by the name.
        key: Of the text.
        name: The file, which the names of rows begin with.
    """
    skipped = []
    for number, (place, row) in enumerate(file_rows(text.encode("utf-8"), name)):
        found = row.get(key) if isinstance(row, dict) else None
        if not isinstance(found, str) or any("\ud800" <= character <= "\udfff" for character in found):
            skipped.append(f"{place} ({row if isinstance(row, UnusableError) else 'no text under that key'})")
        elif found.strip():
            yield f"{name}#{number:08d}", found
    if skipped:
        logger.warning("data: %s: %s row(s) left out; the first: %s", name, f"{len(skipped):,}", skipped[0])


def no_rows(path: str, key: str, texts: Mapping[str, str]) -> DataError:
    """The error for files of which no row has text under `key`, with a key that one has."""
    keys = [
        key for name, text in texts.items() for key, value in _first_row(text, name).items() if isinstance(value, str)
    ]
    return DataError(
        f"no row in {path} has text under {key!r}",
        needed="JSON rows with that key, or CSV with that column",
        fix=f"data.text_key={keys[0]}" if keys else "data.text_key=''   (the files are read as they stand)",
    )


def name_rows(texts: Mapping[str, str]) -> None:
    """Warn, once, that rows with a text are read as they stand unless their key is named."""
    for name, text in texts.items():
        row = _first_row(text, name)
        key = next((key for key in _USUAL if isinstance(row.get(key), str)), "")
        if key:
            logger.warning(
                "data: %s holds %s, which is read as it stands, %s included; for the texts of its rows set "
                "data.text_key=%s",
                name,
                *(("CSV", "commas") if is_csv(name) else ("JSON", "braces")),
                key,
            )
            return


def _first_row(text: str, name: str) -> dict[str, object]:
    """The first row of a file that looks like JSON or is CSV by its name; empty for other files."""
    if is_csv(name):
        return next((row for _, row in csv_rows(text[:_LOOKED_AT].encode("utf-8")) if isinstance(row, dict)), {})
    if text.lstrip()[:1] not in ("{", "["):
        return {}
    _, row = next(json_values(text[:_LOOKED_AT].encode("utf-8")), ("", None))
    return row if isinstance(row, dict) else {}
