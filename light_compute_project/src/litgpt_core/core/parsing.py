"""JSON and YAML that others may have written: bounded in size, depth and number of values. No code is run; no torch.

Whoever reads a file of a checkpoint, a Hugging Face folder or a run reads it here. Whatever is wrong with the content
is a `ParsingError`, a ValueError with one sentence; OSError passes through.

A hostile file costs at most about a second and 50 MB: the size is checked before reading, the number of values
before JSON objects are built, and YAML is checked event by event, with every alias counted as if it were written out.
"""

from __future__ import annotations

import json
import re
import stat
from pathlib import Path
from typing import Any

MAX_JSON_BYTES = 16_000_000
MAX_YAML_BYTES = 1_000_000
"""A YAML file of this project has a few kilobytes, and libyaml reads about 1 MB a second."""
MAX_VALUES = 1_000_000
"""Of JSON: a list or object takes 64 to 200 bytes of memory."""
MAX_YAML_VALUES = 50_000
MAX_DEPTH = 100
"""Levels of lists and objects. Deeper ones would end recursive code, json.dumps and copy.deepcopy included."""
_LONG_NUMBER = re.compile(r"[-+]?[.0-9][-+0-9_:.]{100,}")


class ParsingError(ValueError):
    """The content is too large, too deep, not UTF-8, or not JSON or YAML; the message is a clause without a path."""


def read_bytes(path: Path, *, max_bytes: int = MAX_JSON_BYTES) -> bytes:
    """The content of a regular file.

    Raises:
        ParsingError: It has more than `max_bytes`, or is a device, a pipe or a socket, which might never end.
        OSError: It cannot be opened.
    """
    status = Path(path).stat()
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):  # a folder: open() says so
        raise ParsingError("it is a device, a pipe or a socket, not a file")
    with Path(path).open("rb") as file:
        data = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise ParsingError(f"it has {max(status.st_size, len(data)):,} bytes; at most {max_bytes:,} are read")
    return data


def read_text(path: Path, *, max_bytes: int = MAX_JSON_BYTES) -> str:
    """The UTF-8 text of a file, its line ends as `\\n`; raises as `read_bytes`, and ParsingError if it is not UTF-8."""
    return _decoded(read_bytes(path, max_bytes=max_bytes)).replace("\r\n", "\n").replace("\r", "\n")


def read_json(path: Path, *, max_bytes: int = MAX_JSON_BYTES) -> Any:
    """The value of a JSON file; raises as `read_text` and `parse_json`."""
    return parse_json(read_bytes(path, max_bytes=max_bytes), max_bytes=max_bytes)


def read_yaml(path: Path, *, max_bytes: int = MAX_YAML_BYTES) -> Any:
    """The value of a YAML file; raises as `read_text` and `parse_yaml`."""
    return parse_yaml(read_bytes(path, max_bytes=max_bytes), max_bytes=max_bytes)


def table_in(path: Path) -> dict[str, Any]:
    """The object in a JSON file, or a YAML file by its ending; empty where there is none, or it cannot be read."""
    try:
        content = read_yaml(path) if path.suffix == ".yaml" else read_json(path)
    except (OSError, ParsingError):
        return {}
    return content if isinstance(content, dict) else {}


def parse_json(text: str | bytes, *, max_bytes: int = MAX_JSON_BYTES, max_values: int = MAX_VALUES) -> Any:
    """The value of a JSON text.

    Args:
        text: A string, or UTF-8 bytes.
        max_bytes: Longest text, in bytes (of a string: in characters).
        max_values: Most values: the commas and opening brackets of the text, those inside strings included.

    Raises:
        ParsingError: Too long, too many values, more than `MAX_DEPTH` levels, not UTF-8, or not JSON.
    """
    text = _bounded(text, max_bytes=max_bytes)
    values = text.count(",") + text.count("[") + text.count("{")
    if values > max_values:
        raise ParsingError(f"it holds about {values:,} values; at most {max_values:,} are read")
    try:
        value = json.loads(text)
    except RecursionError:
        raise _too_deep() from None
    except ValueError as problem:
        raise ParsingError(str(problem)) from None
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [child for parent in level for child in _children(parent)]
        if not level:
            return value
    raise _too_deep()


def _children(value: Any) -> list[Any]:
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [child for child in inside if isinstance(child, (dict, list))]


def parse_yaml(text: str | bytes, *, max_bytes: int = MAX_YAML_BYTES, max_values: int = MAX_YAML_VALUES) -> Any:
    """The value of a YAML text: plain values only, as `yaml.safe_load` builds them.

    Args:
        text: A string, or UTF-8 bytes.
        max_bytes: Longest text, in bytes (of a string: in characters).
        max_values: Most scalars, lists and maps; an alias counts as what it repeats.

    Raises:
        ParsingError: Too long, too many values, more than `MAX_DEPTH` levels, not UTF-8, not YAML, or more than plain
            values.
    """
    import yaml

    text = _bounded(text, max_bytes=max_bytes)
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # with libyaml, about ten times as fast
    try:
        _check_events(text, loader=loader, max_values=max_values)
        return yaml.load(text, Loader=loader)
    except ParsingError:
        raise
    except RecursionError:
        raise _too_deep() from None
    except (yaml.YAMLError, ValueError, TypeError, OverflowError, AttributeError, KeyError) as problem:
        raise ParsingError(" ".join(str(problem).split())) from None  # a bad date or tag is not always a YAMLError


def _check_events(text: str, *, loader: Any, max_values: int) -> None:
    """Refuse what would grow: count levels and values as the parser reports them, before anything is built."""
    import yaml

    sizes: dict[str, int] = {}  # values below each finished anchor
    open_nodes: list[tuple[str | None, int]] = []  # anchor, and values before it
    values = 0
    for event in yaml.parse(text, Loader=loader):
        if isinstance(event, yaml.AliasEvent):
            values += sizes.get(
                event.anchor or "", 1
            )  # of an unfinished one: the loader refuses it, or it is refused here
            if any(anchor == event.anchor for anchor, _ in open_nodes):
                raise ParsingError(f"the alias *{event.anchor} contains itself")
        elif isinstance(event, yaml.CollectionStartEvent):
            open_nodes.append((event.anchor, values))
            values += 1
            if len(open_nodes) > MAX_DEPTH:
                raise _too_deep()
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = open_nodes.pop()
            if anchor is not None:
                sizes[anchor] = values - before
        elif isinstance(event, yaml.ScalarEvent):
            values += 1
            if event.anchor is not None:
                sizes[event.anchor] = 1
            if _LONG_NUMBER.fullmatch(event.value):  # base 60: quadratic in its length
                raise ParsingError(f"it holds a number of {len(event.value):,} characters")
        if values > max_values:
            raise ParsingError(f"it holds more than {max_values:,} values, aliases included")


def _bounded(text: str | bytes, *, max_bytes: int) -> str:
    if len(text) > max_bytes:
        raise ParsingError(f"it has {len(text):,} bytes; at most {max_bytes:,} are read")
    return _decoded(text) if isinstance(text, bytes) else text


def _decoded(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as problem:
        raise ParsingError(f"it is not UTF-8 ({problem.reason} at byte {problem.start:,})") from None


def _too_deep() -> ParsingError:
    return ParsingError(f"it is nested more than {MAX_DEPTH} levels deep")
