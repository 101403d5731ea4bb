"""Corpora of any size: the same shards from every format, number of workers, listing order, and after kills."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import json
import logging
import lzma
import os
import random
import subprocess
import sys
import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from litgpt_core import tokenizers
from litgpt_core.core.errors import ConfigError, DataError
from litgpt_core.data.prepare import PreparedData, open_prepared, prepare
from litgpt_core.data.settings import TextSettings
from litgpt_core.data.stream import chunk_shards, inputs, prepare_stream
from litgpt_core.data.stream.chunk_shards import facts_path, index_path, shard_path
from litgpt_core.data.stream.lottery import lottery_number
from litgpt_core.data.stream.readers import LONGEST, ReadReport
from litgpt_core.data.stream_settings import RowsSettings
from litgpt_core.tokenizers.settings import ByteSettings, SubwordSettings, TokenizerSettings

WORDS = ("the", "small", "model", "reads", "é", "text", "about", "ünïcode", "and", "数字", "every", "day", "before")


def documents(count: int, *, seed: int = 0) -> list[str]:
    rng = random.Random(seed)
    return [
        "".join(f"{' '.join(rng.choices(WORDS, k=8))} {rng.randrange(999)}\n" for _ in range(rng.randrange(1, 12)))
        for _ in range(count)
    ]


def write_jsonl(path: Path, texts: Iterable[str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"id": i, "text": text}) + "\n" for i, text in enumerate(texts)))
    return path


def make(path: Path, tokenizer: TokenizerSettings | None = None, **more: Any) -> PreparedData:
    settings = {"path": str(path), "cache_dir": str(path.parent / "cache"), "workers": 1, **more}
    return prepare(RowsSettings(**settings), tokenizer or ByteSettings())


def contents(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def shard_bytes(prepared: PreparedData, side: str) -> bytes:
    return b"".join(shard.path.read_bytes() for shard in prepared.shards(side))


def texts_of(prepared: PreparedData, side: str) -> list[str]:
    """The documents of a split, by the index of each shard."""
    tokenizer = tokenizers.load(prepared.tokenizer_dir)
    found = []
    for shard in prepared.shards(side):
        ids, ends = np.fromfile(shard.path, dtype=prepared.dtype), np.fromfile(index_path(shard.path), dtype="<u8")
        assert ends[-1] == len(ids) == shard.tokens
        found += [tokenizer.decode(part.tolist()) for part in np.split(ids, ends.astype(np.int64))[:-1]]
    return found


def test_every_document_is_on_one_side_once_and_in_order(tmp_path: Path) -> None:
    texts = documents(400)
    prepared = make(write_jsonl(tmp_path / "a.jsonl", texts), chunk_bytes=9_000, val_fraction=0.1)
    train, val = texts_of(prepared, "train"), texts_of(prepared, "val")
    sides = [lottery_number(text.encode(), seed=1337) < 0.1 for text in texts]
    assert train == [text for text, held_out in zip(texts, sides, strict=True) if not held_out]
    assert val == [text for text, held_out in zip(texts, sides, strict=True) if held_out] and len(val) > 20
    assert len(prepared.shards("train")) > 10 and prepared.meta["splits"]["train"]["documents"] == len(train)
    assert prepared.val_bytes == sum(len(text.encode()) for text in val)
    assert open_prepared(prepared.directory).meta == prepared.meta


def test_formats_and_compression_do_not_change_the_shards(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    parquet, zstandard = pytest.importorskip("pyarrow.parquet"), pytest.importorskip("zstandard")
    texts = documents(150)
    raw = write_jsonl(tmp_path / "plain" / "x.jsonl", texts).read_bytes()
    packed = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress, "zst": zstandard.compress}
    for ending, pack in packed.items():
        (tmp_path / ending).mkdir()
        half = raw.index(b"\n", len(raw) // 2) + 1  # two members in one file
        (tmp_path / ending / f"x.jsonl.{ending}").write_bytes(pack(raw[:half]) + pack(raw[half:]))
    table = pa.table({"id": list(range(150)), "text": texts})
    for name in ("parquet", "arrow", "arrow file"):
        (tmp_path / name).mkdir()
    parquet.write_table(table, tmp_path / "parquet" / "x.parquet", row_group_size=20)
    with pa.ipc.new_stream(tmp_path / "arrow" / "data-0.arrow", table.schema) as file:
        file.write_table(table, max_chunksize=50)
    with pa.ipc.new_file(tmp_path / "arrow file" / "data-0.arrow", table.schema) as file:
        file.write_table(table)
    expected = make(tmp_path / "plain", name="plain")
    for folder, kind in [
        ("parquet", "parquet"),
        ("arrow", "arrow"),
        ("arrow file", "arrow"),
        *((e, "jsonl") for e in packed),
    ]:
        prepared = make(tmp_path / folder, kind=kind, name=folder.replace(" ", "-"))
        for side in ("train", "val"):
            assert shard_bytes(prepared, side) == shard_bytes(expected, side), folder


def test_row_groups_are_read_once_whatever_the_cut(tmp_path: Path) -> None:
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    texts = documents(300)
    parquet.write_table(pa.table({"text": texts}), tmp_path / "x.parquet", row_group_size=7)
    whole = make(tmp_path / "x.parquet", kind="parquet", chunk_bytes=10**9)
    for size in (700, 3_000, 11_111):
        cut = make(tmp_path / "x.parquet", kind="parquet", chunk_bytes=size)
        assert shard_bytes(cut, "train") == shard_bytes(whole, "train")
        assert shard_bytes(cut, "val") == shard_bytes(whole, "val")


@pytest.mark.parametrize("size", [137, 1_000, 5_003])
def test_lines_are_read_once_whatever_the_cut(tmp_path: Path, size: int) -> None:
    path = write_jsonl(tmp_path / "x.jsonl", documents(60))
    whole, cut = make(path, chunk_bytes=10**9), make(path, chunk_bytes=size)
    assert shard_bytes(cut, "train") == shard_bytes(whole, "train") and len(cut.shards("train")) > 3


def test_neither_workers_nor_listing_order_nor_a_kill_changes_a_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(9):
        write_jsonl(tmp_path / "corpus" / f"{number}.jsonl", documents(30, seed=number))
    settings: dict[str, Any] = {"chunk_bytes": 20_000, "tokenizer": SubwordSettings(kind="bpe", vocab_size=300)}
    expected = contents(make(tmp_path / "corpus", cache_dir=str(tmp_path / "one"), **settings).directory)
    assert len(expected) > 8
    listed = inputs.named_files
    monkeypatch.setattr(inputs, "named_files", lambda *args, **more: listed(*args, **more)[::-1])
    assert contents(make(tmp_path / "corpus", cache_dir=str(tmp_path / "two"), **settings).directory) == expected
    monkeypatch.undo()
    for limit in range(1, 6):  # each start ends inside another chunk; the next one continues
        left = iter(range(limit))
        tokenize = chunk_shards._SideWriter.finish

        def ending(self: Any, left: Any = left, tokenize: Any = tokenize) -> Any:
            if next(left, None) is None:
                raise KeyboardInterrupt
            return tokenize(self)

        monkeypatch.setattr(chunk_shards._SideWriter, "finish", ending)
        with pytest.raises(KeyboardInterrupt):
            make(tmp_path / "corpus", cache_dir=str(tmp_path / "three"), **settings)
        monkeypatch.undo()
    work = next((tmp_path / "three").glob(".rows-*.work"))
    done = sorted(path.name for path in work.glob("chunk-*.json"))
    assert done, "chunks that were finished stay"
    (work / ".writing-1-train-00099.ds").write_bytes(b"left by a killed process")
    shard_path(work, "train", 0).write_bytes(b"xx")  # a chunk whose file is not what its record says is made again
    assert contents(make(tmp_path / "corpus", cache_dir=str(tmp_path / "three"), **settings).directory) == expected
    assert not list((tmp_path / "three").glob(".rows-*.work"))


SCRIPT = """
    import sys
    from litgpt_core.data.prepare import prepare
    from litgpt_core.data.stream_settings import RowsSettings
    from litgpt_core.tokenizers.settings import SubwordSettings
    path, cache, workers = sys.argv[1:]
    if __name__ == "__main__":
        settings = RowsSettings(path=path, cache_dir=cache, workers=int(workers), chunk_bytes=20_000)
        prepare(settings, SubwordSettings(kind="bpe", vocab_size=300))
"""


@pytest.mark.serial
def test_two_processes_write_what_one_writes_also_after_kill_9(tmp_path: Path) -> None:
    for number in range(9):
        write_jsonl(tmp_path / "corpus" / f"{number}.jsonl", documents(120, seed=number))
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(SCRIPT))
    settings: dict[str, Any] = {"chunk_bytes": 20_000, "tokenizer": SubwordSettings(kind="bpe", vocab_size=300)}
    expected = contents(make(tmp_path / "corpus", cache_dir=str(tmp_path / "one"), **settings).directory)
    cache = tmp_path / "two"
    command = [sys.executable, "-P", str(script), str(tmp_path / "corpus"), str(cache), "2"]
    child = subprocess.Popen(command, env={**os.environ, "PYTHONUTF8": "1"})
    try:
        while child.poll() is None and not list(cache.glob(".rows-*.work/chunk-*.json")):
            pass
    finally:
        child.kill()
        child.wait()
    subprocess.run(command, check=True, timeout=120)
    (folder,) = [path for path in cache.iterdir() if path.is_dir() and path.name.startswith("rows-")]
    assert contents(folder) == expected


def test_the_next_start_reads_nothing_and_a_touched_file_is_only_hashed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("litgpt_core.data.unchanged.SETTLED_S", -1.0)
    path = write_jsonl(tmp_path / "corpus" / "a.jsonl", documents(50))
    calls: list[str] = []
    monkeypatch.setattr(
        prepare_stream, "_make", lambda corpus, real=prepare_stream._make: calls.append("made") or real(corpus)
    )
    hashing = prepare_stream.hash_all
    monkeypatch.setattr(prepare_stream, "hash_all", lambda *a, **k: calls.append("hashed") or hashing(*a, **k))
    first = make(tmp_path / "corpus")
    assert make(tmp_path / "corpus").meta == first.meta and calls == ["made"]
    assert make(tmp_path / "corpus", workers=3, order="blocks").directory == first.directory and calls == ["made"]
    os.utime(path, (1, 1))
    assert make(tmp_path / "corpus").directory == first.directory and calls == ["made", "hashed"]
    make(tmp_path / "corpus", verify="full")
    assert calls == ["made", "hashed", "hashed"]
    with caplog.at_level(logging.INFO):
        write_jsonl(path, documents(50)[::-1])
        assert make(tmp_path / "corpus").directory != first.directory
    assert calls[3:] == ["hashed", "made"] and "the documents have changed" in caplog.text


def test_rows_that_cannot_be_used_are_counted_and_the_first_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("litgpt_core.data.stream.records.lines.__kwdefaults__", {"longest": 4_000})
    good = [json.dumps({"text": text}) for text in documents(20)]
    rows = [
        "\ufeff" + good[0],
        '{"content": "x", "n": 1}',
        *good[1:10],
        "{cut",
        json.dumps({"text": "y" * 9_000}),
        "[1]",
    ]
    rows += [*good[10:], json.dumps({"text": "\ud800"}), json.dumps({"text": " \n"}), "", good[3][:-5]]
    (tmp_path / "a.jsonl").write_text("\n".join(rows), encoding="utf-8", errors="surrogatepass")
    prepared = make(tmp_path / "a.jsonl")
    documents_in = sum(prepared.meta["splits"][side]["documents"] for side in ("train", "val"))
    assert (documents_in, prepared.meta["rows_left_out"]) == (20, 6)
    assert "6 row(s) left out; the first: a.jsonl, line 2 (no text under 'text'; it has content)" in caplog.text
    assert LONGEST == 64_000_000


@pytest.mark.parametrize(
    ("content", "settings", "said"),
    [
        (b'{"content": "a"}\n{"content": "b"}\n', {}, "no text under 'text'; it has content"),
        (b'[{"text": "a"}]', {}, "one JSON array"),
        (b'{"text": "a"}\n{"text": "a"}\n', {}, "one document, or copies of it"),
        (b"", {}, "every file is empty"),
        (gzip.compress(b'{"text": "a"}\n' * 9, mtime=0)[:-9], {}, "damaged gzip data"),
        (b'{"text": "a\\u0000b"}\n{"text": "b"}\n', {}, "NUL byte"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, content: bytes, settings: dict[str, Any], said: str) -> None:
    (tmp_path / "a.jsonl").write_bytes(content)
    with pytest.raises(Exception, match=said) as caught:
        make(tmp_path / "a.jsonl", **settings)
    assert "try:" in str(caught.value)


def test_zstd_that_is_cut_off_is_damaged(tmp_path: Path) -> None:
    zstandard = pytest.importorskip("zstandard")
    raw = "".join(json.dumps({"text": text}) + "\n" for text in documents(90)).encode()
    (tmp_path / "a.jsonl.zst").write_bytes(zstandard.compress(raw)[:-20])
    with pytest.raises(DataError, match=r"a\.jsonl\.zst is damaged zstd data: the file is cut off"):
        make(tmp_path / "a.jsonl.zst")


def test_a_wrong_column_is_named_and_others_are_listed(tmp_path: Path) -> None:
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pa.table({"content": ["a", "b"], "n": [1, 2]}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match="no text column 'text'; its text columns: content"):
        make(tmp_path / "a.parquet", kind="parquet")
    (tmp_path / "b.parquet").write_bytes(b"PAR1 and nothing else")
    with pytest.raises(DataError, match=r"b\.parquet cannot be read as Parquet"):
        make(tmp_path / "b.parquet", kind="parquet")


def test_large_text_is_streamed_and_small_text_is_as_before(tmp_path: Path) -> None:
    (tmp_path / "corpus").mkdir()
    for number, text in enumerate(documents(12)):
        (tmp_path / "corpus" / f"{number:02}.txt").write_text(text)
    base: dict[str, Any] = {"path": str(tmp_path / "corpus"), "cache_dir": str(tmp_path / "cache"), "workers": 1}
    small = prepare(TextSettings(**base), ByteSettings())
    assert small.meta["format_version"] == 1 and "workers" not in json.dumps(small.meta)
    large = prepare(TextSettings(**base, stream_above=0, name="large", val_fraction=0.3), ByteSettings())
    assert large.meta["format_version"] == 2
    assert sorted(texts_of(large, "train") + texts_of(large, "val")) == sorted(documents(12))


def test_long_text_is_cut_into_sections_that_join_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("litgpt_core.data.stream.readers.WHOLE_FILE", 1_000)
    monkeypatch.setattr("litgpt_core.data.stream.records.sections.__kwdefaults__", {"size": 700})
    text = "".join(documents(80))
    lines = [f"{text[i : i + 90]}\n" for i in range(0, len(text), 90)]
    (tmp_path / "a.txt").write_text("\n".join(lines))
    base: dict[str, Any] = {"path": str(tmp_path / "a.txt"), "cache_dir": str(tmp_path / "cache"), "stream_above": 0}
    settings = TextSettings(**base, workers=1)
    reader = prepare_stream.reader_of(settings)
    files = inputs.list_inputs(settings.path, settings.glob)
    for size in (10**9, 5_000, 1_777):
        found = [text for chunk in reader.chunks(files, chunk_bytes=size) for text in reader.read(chunk, ReadReport())]
        assert "".join(found) == (tmp_path / "a.txt").read_text() and len(found) > 20
    (tmp_path / "a.txt").write_bytes(b"".join(b"text %d\xff\n" % i for i in range(900)))
    with pytest.raises(DataError, match="cannot be decoded as utf-8 at byte offset 6"):
        prepare(settings, ByteSettings())
    replaced = prepare(TextSettings(**base, workers=1, decode_errors="replace"), ByteSettings())
    found = [text for side in ("train", "val") for text in texts_of(replaced, side)]
    assert "".join(found).count("\ufffd") == 900


def test_separated_documents_are_read_once_whatever_the_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("litgpt_core.data.stream.readers.WHOLE_FILE", 1_000)
    texts = [text.strip("\n") for text in documents(90)]
    (tmp_path / "a.txt").write_text("\n<|endoftext|>\n".join(texts))
    settings = TextSettings(path=str(tmp_path / "a.txt"), document_separator="<|endoftext|>")
    reader, files = prepare_stream.reader_of(settings), inputs.list_inputs(settings.path, settings.glob)
    for size in (10**9, 4_000, 300, 77):
        found = [text for chunk in reader.chunks(files, chunk_bytes=size) for text in reader.read(chunk, ReadReport())]
        assert found == texts, size


def test_settings_out_of_range_are_refused_together() -> None:
    with pytest.raises(ConfigError) as caught:
        RowsSettings(path="???", workers=-1, order="none", chunk_bytes=-1, val_bytes=0, text_key="", glob="")  # type: ignore[arg-type]
    for said in ("path is missing", "workers=-1", "order='none'", "chunk_bytes", "val_bytes=0", "text_key is empty"):
        assert said in str(caught.value)


def test_a_changed_shard_is_noticed_and_made_again(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", documents(60))
    first = make(path, chunk_bytes=4_000)
    expected = contents(first.directory)
    first.shards("train")[1].path.write_bytes(b"short")
    with pytest.raises(DataError, match=r"train-00001\.ds has 5 bytes"):
        open_prepared(first.directory)
    assert contents(make(path, chunk_bytes=4_000).directory) == expected
    (first.directory / "manifest.json").write_text("{}")
    with pytest.raises(DataError, match=r"manifest\.json was changed"):
        open_prepared(first.directory)
    assert not facts_path(first.directory, 0).exists()
