"""A finished folder is used without reading the corpus while its files are the same; any change is noticed."""

from __future__ import annotations

import csv
import json
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from litgpt_core.core.errors import DataError
from litgpt_core.data import text_prepare
from litgpt_core.data.prepare import prepare
from litgpt_core.data.prepared import PreparedData
from litgpt_core.data.settings import TextSettings
from litgpt_core.data.unchanged import inputs_state, remember
from litgpt_core.tokenizers.settings import ByteSettings, CharSettings, TokenizerSettings

Reads = list[str]


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Iterator[Reads]:
    """Names of the sources that were read; files count as settled at once."""
    found: Reads = []
    read = text_prepare.read_corpus
    monkeypatch.setattr(text_prepare, "read_corpus", lambda data: found.append(data.name) or read(data))
    monkeypatch.setattr("litgpt_core.data.unchanged.SETTLED_S", -1.0)
    return found


def corpus(folder: Path, *, files: int = 3) -> Path:
    (folder / "texts").mkdir()
    for i in range(files):
        (folder / "texts" / f"{i}.txt").write_text("".join(f"{i} line {n}\n" for n in range(100)))
    return folder / "texts"


def make(path: Path, tokenizer: TokenizerSettings | None = None, **more: Any) -> PreparedData:
    settings = {"path": str(path), "cache_dir": str(path.parent / "cache"), **more}
    return prepare(TextSettings(**settings), tokenizer or ByteSettings())


def test_the_second_start_reads_nothing(tmp_path: Path, reads: Reads, caplog: pytest.LogCaptureFixture) -> None:
    path = corpus(tmp_path)
    first = make(path)
    with caplog.at_level(logging.INFO):
        second = make(path)
    assert (second.directory, second.meta) == (first.directory, first.meta) and reads == ["text"]
    assert "3 file(s) unchanged" in caplog.text
    make(path, verify="full")
    assert reads == ["text", "text"]


@pytest.mark.parametrize(
    "change", ["content", "same size and time", "added", "removed", "renamed", "touched", "record"]
)
def test_any_change_is_read(change: str, tmp_path: Path, reads: Reads) -> None:
    path = corpus(tmp_path)
    first = make(path)
    file = path / "1.txt"
    before = file.stat()
    text = file.read_text()
    if change == "content":
        file.write_text(text + "more\n")
    elif change == "same size and time":
        file.write_text(text.replace("line 7\n", "LINE 7\n"))
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    elif change == "added":
        (path / "9.txt").write_text("new\n" * 50)
    elif change == "removed":
        file.unlink()
    elif change == "renamed":
        file.rename(path / "1a.txt")
    elif change == "touched":
        os.utime(file)
    else:
        (record,) = (tmp_path / "cache").glob(".*.inputs.json")
        record.write_text("[1]")
    second = make(path)
    assert len(reads) == 2
    assert (second.directory == first.directory) == (change in ("touched", "record"))


def test_other_settings_and_tokenizers_have_records_of_their_own(tmp_path: Path, reads: Reads) -> None:
    path = corpus(tmp_path)
    folders = [make(path), make(path, val_fraction=0.4), make(path, CharSettings())]
    again = [make(path), make(path, val_fraction=0.4), make(path, CharSettings())]
    assert [each.directory for each in again] == [each.directory for each in folders] and len(reads) == 3
    assert len({each.directory for each in folders}) == 3


def test_a_folder_that_is_gone_or_damaged_is_made_again(tmp_path: Path, reads: Reads) -> None:
    path = corpus(tmp_path)
    prepared = make(path)
    prepared.val_path.write_bytes(b"")
    assert make(path).val_tokens == prepared.val_tokens and len(reads) == 2
    assert make(path).val_path.stat().st_size > 0 and len(reads) == 2


def test_files_that_changed_just_before_are_not_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = corpus(tmp_path)
    data, tokenizer = TextSettings(path=str(path), cache_dir=str(tmp_path / "cache")), ByteSettings()
    state = inputs_state(data)
    assert state is not None and list(state) == ["0.txt", "1.txt", "2.txt"]
    for began, recorded in ((time.time(), 0), (time.time() + 10, 1), (time.time(), 0)):
        remember(data, tokenizer, state, began=began, fingerprint="f")
        found = list((tmp_path / "cache").glob(".*.inputs.json"))
        assert len(found) == recorded
    assert inputs_state(TextSettings(path=str(tmp_path / "nothing"))) is None


def test_texts_of_json_rows(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [{"text": f"document {i}\n" * 20, "meta": {"i": i}} for i in range(9)]
    path = tmp_path / "x.jsonl"
    odd = [{"text": None}, {"text": 7}, [], "x", {"text": "\ud83d"}, {"text": " "}, {"other": 1}]
    path.write_text("\n".join([*map(json.dumps, [*rows, *odd]), "{broken"]))
    prepared = make(path, text_key="text", group_near_duplicates=False)
    splits = prepared.meta["splits"]
    assert splits["train"]["documents"] + splits["val"]["documents"] == 9
    assert "7 row(s) left out; the first: line 10 (no text under that key)" in caplog.text
    with pytest.raises(DataError, match=r"no row in .* has text under 'body'(.|\n)*data\.text_key=text"):
        make(path, text_key="body")
    caplog.clear()
    make(path)
    assert "holds JSON, which is read as it stands, braces included" in caplog.text
    assert "data.text_key=text" in caplog.text


def test_texts_of_a_csv_column(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "x.csv"
    documents = [f'document {i}, "quoted"\n' * 20 for i in range(9)]
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("id", "text"), *enumerate(documents), (9, "")])
    prepared = make(path, text_key="text", group_near_duplicates=False)
    splits = prepared.meta["splits"]
    assert splits["train"]["bytes"] + splits["val"]["bytes"] == sum(map(len, documents))
    with pytest.raises(DataError, match=r"no row in .* has text under 'body'(.|\n)*data\.text_key=id"):
        make(path, text_key="body")
    caplog.clear()
    make(path)
    assert "holds CSV, which is read as it stands, commas included" in caplog.text
