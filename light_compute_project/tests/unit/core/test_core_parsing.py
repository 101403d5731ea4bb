"""JSON and YAML from others: what is read, and that a hostile text costs one clear error, little time and memory."""

from __future__ import annotations

import json
import os
import time
import tracemalloc
from pathlib import Path

import pytest
import yaml

from litgpt_core.core import parsing
from litgpt_core.core.parsing import MAX_DEPTH, ParsingError, parse_json, parse_yaml, read_json, read_text, read_yaml

JSON_BOMBS = {
    "deep": ("[" * 200_000, "nested more than 100"),
    "closed but deep": ("[" * (MAX_DEPTH + 2) + "]" * (MAX_DEPTH + 2), "nested more than 100"),
    "many lists": ("[" + "[]," * 5_000_000 + "[]]", "values; at most"),
    "long number": ("1" * 5_000_000, "4300 digits"),
    "long text": ('"' + "a" * 16_000_000 + '"', "at most 16,000,000"),
    "half": ('{"a": ', "Expecting value"),
}
NINE = "\n".join(f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12))
YAML_BOMBS = {
    "deep list": ("[" * 100_000, "nested more than 100"),
    "deep entries": ("- " * 100_000, "nested more than 100"),
    "doubling aliases": ("a0: &a0 [x, x]\n" + NINE, "aliases included"),
    "merged aliases": ("a: &a {x: 1}\nb: {<<: [" + "*a, " * 30_000 + "]}", "aliases included"),
    "contains itself": ("a: &a [*a]", "contains itself"),
    "base 60": ("a: " + "1:" * 400_000 + "1", "a number of 800,001 characters"),
    "code": ("!!python/object/apply:os.system [ls]", "could not determine a constructor"),
    "no date": ("2001-99-99", "month"),
    "no integer": ("!!int x", "invalid literal"),
    "long text": ("a" * 1_000_001, "at most 1,000,000"),
}


@pytest.mark.parametrize("name", JSON_BOMBS)
def test_a_hostile_json_text_is_one_short_error_in_little_time_and_memory(name: str) -> None:
    text, message = JSON_BOMBS[name]
    _refused(parse_json, text, message)


@pytest.mark.parametrize("name", YAML_BOMBS)
def test_a_hostile_yaml_text_is_one_short_error_in_little_time_and_memory(name: str) -> None:
    text, message = YAML_BOMBS[name]
    _refused(parse_yaml, text, message)


def _refused(parse: object, text: str, message: str) -> None:
    assert callable(parse)
    start = time.process_time()
    tracemalloc.start()
    try:
        with pytest.raises(ParsingError, match=message) as caught:
            parse(text)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(str(caught.value)) < 400
    assert peak < 100e6
    assert time.process_time() - start < 3  # tracemalloc included; without it, below 0.2


def test_ordinary_values_are_those_of_the_plain_parsers() -> None:
    value = {"a": [1, 2.5, None, True, "é\n"], "b": {"c": [[], {}]}, "long": "x, y: " * 1000}
    assert parse_json(json.dumps(value)) == parse_json(json.dumps(value).encode()) == value
    assert parse_yaml(yaml.safe_dump(value)) == value
    text = "base: &base {x: 1, y: [1e3, 0x10, 2020-01-01]}\nother: {<<: *base, y: 2}\n"
    assert parse_yaml(text) == yaml.safe_load(text)
    assert parse_yaml("") is None


def test_the_deepest_value_that_is_allowed() -> None:
    text = "[" * MAX_DEPTH + "]" * MAX_DEPTH
    assert parse_json(text) == parse_yaml(text)


def test_files_are_read_within_bounds(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_bytes(b'{"a": "b"}\r\n')
    assert read_json(file) == read_yaml(file) == {"a": "b"}
    assert read_text(file) == '{"a": "b"}\n'
    with pytest.raises(ParsingError, match="it has 12 bytes; at most 5 are read"):
        read_json(file, max_bytes=5)
    file.write_bytes(b'{"a": "\xff"}')
    for read in (read_json, read_yaml, read_text):
        with pytest.raises(ParsingError, match=r"not UTF-8 .* at byte 7"):
            read(file)
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "absent")
    with pytest.raises(IsADirectoryError):
        read_json(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_or_device_is_refused_without_waiting_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "endless").symlink_to("/dev/zero")
    for name in ("pipe", "endless"):
        with pytest.raises(ParsingError, match="a device, a pipe or a socket"):
            parsing.read_bytes(tmp_path / name)
