"""The JSON values of a file, one after the other: JSONL, one array, objects over several lines; in any UTF.

    {"a": 1}            a line is a value; a line that is none is reported with its number, and reading goes on
    {"a": 2}

    [{"a": 1},          the values of an array, and objects that follow each other, are found wherever lines end;
     {"a": 2}]          what follows a damaged place is not read, and its line and column are reported

    {"data": [...]}     an object that holds the rows under one key counts as the array

Not here: what a value means (`chat_formats`).
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from typing import Any

from litgpt_core.core.parsing import ParsingError, parse_json
from litgpt_core.data.encoding import wide_without_mark

MAX_ROW_BYTES = 64_000_000
"""Longest row."""
MANY_KEYS, KEYS_PER_OBJECT = 100_000, 1_000
"""A line with more keys than the first number, and than the second times its objects, is not parsed."""
_KEY = re.compile(rb'"\s*:')

_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_ROLES = ("role", "from")
_HOLDERS = ("data", "train", "rows", "examples", "conversations", "messages")
"""Keys of an object that holds all rows of a file."""
_SPACE = " \t\n\r"


class UnusableError(Exception):
    """A row cannot be used; the message says why. Caught where its place is known."""


def json_values(raw: bytes) -> Iterator[tuple[str, Any]]:
    """(place, value) for every row; the value is an UnusableError where there is none. Places are `line 3`, `row 7`.

    Args:
        raw: All bytes of a file.
    """
    try:
        raw = as_utf8(raw)
    except UnicodeDecodeError as problem:
        yield "the file", UnusableError(f"it is damaged {problem.encoding} at byte offset {problem.start:,}")
        return
    lines = raw.split(b"\n")
    filled = [number for number, line in enumerate(lines) if line.strip()]
    if not filled:
        return
    first = _parsed(lines[filled[0]])
    if isinstance(first, UnusableError) and _spans_lines(raw):
        yield from _spanning(raw)
        return
    for number in filled:
        yield from _rows(first if number == filled[0] else _parsed(lines[number]), f"line {number + 1}")


def as_utf8(raw: bytes) -> bytes:
    """The bytes of UTF-16 or UTF-32, with a byte-order mark or without, as UTF-8; others unchanged, without the mark.

    Raises:
        UnicodeDecodeError: A place that is damaged.
    """
    encoding = next((name for mark, name in _MARKS if raw.startswith(mark)), "") or wide_without_mark(raw)
    if encoding:
        raw = raw.decode(encoding).removeprefix("\ufeff").encode("utf-8", "surrogatepass")
    return raw.removeprefix(codecs.BOM_UTF8)


def _rows(value: Any, place: str) -> Iterator[tuple[str, Any]]:
    """The value as one row, or the rows of an array, or of an object that holds one."""
    candidates = [each for key, each in value.items() if key in _HOLDERS] if isinstance(value, dict) else [value]
    inside = next((each for each in candidates if _is_array_of_rows(each)), None)
    if inside is not None:
        yield from ((f"{place}, row {number}", each) for number, each in enumerate(inside, start=1))
    else:
        yield place, value


def _is_array_of_rows(value: object) -> bool:
    """Whether a list holds rows: objects that are no messages, or lists of messages."""
    if not isinstance(value, list) or not value:
        return False
    if all(isinstance(item, list) for item in value):
        return True
    return isinstance(value[0], dict) and not any(len(key) <= 4 and key.lower() in _ROLES for key in value[0])


def _parsed(line: bytes) -> Any:
    """The value of a line, or an UnusableError."""
    if reason := _too_many_keys(line):
        return UnusableError(reason)
    try:
        return parse_json(line, max_bytes=MAX_ROW_BYTES)
    except ParsingError as problem:
        reason = str(problem)
        return UnusableError(reason if reason.startswith("it ") else f"it is not JSON ({reason})")


def _too_many_keys(text: bytes) -> str:
    """Why JSON is not parsed, or nothing: an object of 300,000 keys would take 55 MB before it is refused."""
    if text.count(b":") <= MANY_KEYS:
        return ""
    keys, objects = sum(1 for _ in _KEY.finditer(text)), text.count(b"{")
    if keys <= max(MANY_KEYS, KEYS_PER_OBJECT * objects):
        return ""
    return f"it has about {keys:,} keys; at most {KEYS_PER_OBJECT:,} of an object are read"


def _spans_lines(raw: bytes) -> bool:
    """Whether a file whose first line is no value begins with a value, or an array's first row, of several lines."""
    if _too_many_keys(raw):
        return False
    text = raw.decode("utf-8", "replace").lstrip()
    try:
        value, _ = json.JSONDecoder().raw_decode(text, _skip(text, 1, _SPACE) if text.startswith("[") else 0)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict | list)


def _spanning(raw: bytes) -> Iterator[tuple[str, Any]]:
    """Values that follow each other, arrays opened; ends at the first damaged place."""
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as problem:
        yield "the file", UnusableError(f"it is not UTF-8 (byte offset {problem.start:,})")
        return
    decoder = json.JSONDecoder()
    at, row, inside = 0, 0, False
    while True:
        at = _skip(text, at, _SPACE + ",")
        if at == len(text):
            if inside:
                yield _place(text, at), UnusableError("the array does not end; the file is cut off here")
            return
        if text[at] == "[" and not inside and not _holds_messages(text, at):
            at, inside = at + 1, True
            continue
        if text[at] == "]" and inside:
            at, inside = at + 1, False
            continue
        try:
            end = decoder.raw_decode(text, at)[1]
        except (ValueError, RecursionError) as problem:
            where = _place(text, getattr(problem, "pos", at))
            reason = getattr(problem, "msg", "nested too deeply")
            yield where, UnusableError(f"it is not JSON ({reason}); nothing after it is read")
            return
        row += 1
        yield from _rows(_parsed(text[at:end].encode("utf-8")), f"row {row}")
        at = end


def _holds_messages(text: str, at: int) -> bool:
    """Whether the array that begins at `at` is one conversation of messages."""
    try:
        value = json.JSONDecoder().raw_decode(text, _skip(text, at + 1, _SPACE))[0]
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and not _is_array_of_rows([value])


def _skip(text: str, at: int, characters: str) -> int:
    while at < len(text) and text[at] in characters:
        at += 1
    return at


def _place(text: str, at: int) -> str:
    line = text.count("\n", 0, at) + 1
    return f"line {line}, column {at - text.rfind(chr(10), 0, at)}"
