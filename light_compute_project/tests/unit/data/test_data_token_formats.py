"""Token shards of other projects: what is written in each format is read back as the same tokens, where it lies."""

from __future__ import annotations

import json
import random
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from litgpt_core import tokenizers
from litgpt_core.core.errors import CheckpointError, ConfigError, DataError
from litgpt_core.data.prepare import PreparedData, prepare
from litgpt_core.data.stream import token_writing
from litgpt_core.data.stream.token_row import TokenRow
from litgpt_core.data.stream.token_writing import FORMATS, write_tokens
from litgpt_core.data.stream_settings import RowsSettings, TokensSettings
from litgpt_core.tokenizers.settings import ByteSettings, PretrainedSettings, SubwordSettings, TokenizerSettings


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    """A folder of several shards."""
    root, rng = tmp_path_factory.mktemp("tokens"), random.Random(0)
    words = ["".join(rng.choices("abcdefgh", k=rng.randrange(2, 7))) for _ in range(99)]
    rows = [json.dumps({"text": " ".join(rng.choice(words) for _ in range(rng.randrange(2, 90)))}) for _ in range(300)]
    (root / "a.jsonl").write_text("\n".join(rows))
    settings = RowsSettings(
        path=str(root / "a.jsonl"), cache_dir=str(root), chunk_bytes=9_000, workers=1, val_fraction=0.1
    )
    return prepare(settings, SubwordSettings(kind="bpe", vocab_size=280))


def row(data: PreparedData, side: str) -> list[int]:
    found = TokenRow(data.shards(side), dtype=data.dtype)
    return found.span(0, found.tokens).tolist()


def adopt(path: Path, cache: Path, tokenizer: TokenizerSettings, **more: Any) -> PreparedData:
    return prepare(TokensSettings(path=str(path), cache_dir=str(cache), **more), tokenizer)


@pytest.mark.parametrize("format", FORMATS)
def test_out_and_in_is_the_identity(
    prepared: PreparedData, tmp_path: Path, format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_writing, "LLMC_SHARD_TOKENS", 5_000)
    monkeypatch.setattr(token_writing, "_AT_ONCE", 777)
    counts = write_tokens(prepared, tmp_path / "out", format=format)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    back = adopt(tmp_path / "out", tmp_path / "cache", PretrainedSettings(path=str(tmp_path / "out" / "tokenizer")))
    for side in ("train", "val"):
        assert row(back, side) == row(prepared, side) and counts[side] == len(row(back, side))
    assert back.meta["shard_format"] == format
    assert back.val_bytes == prepared.val_bytes and back.val_tokens_per_byte == prepared.val_tokens_per_byte
    assert back.meta["splits"]["val"]["documents"] == prepared.meta["splits"]["val"]["documents"]
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")} == before, (
        "nothing is written there"
    )
    again = adopt(tmp_path / "out", tmp_path / "cache", PretrainedSettings(path=str(tmp_path / "out" / "tokenizer")))
    assert again.directory == back.directory
    inputs, targets = back.train_batches(block_size=16, seed=1, micro_batch_size=4, global_batch_size=4)[3]
    first, same = prepared.train_batches(block_size=16, seed=1, micro_batch_size=4, global_batch_size=4)[3]
    assert inputs.tolist() == first.tolist() and targets.tolist() == same.tolist()
    with pytest.raises(CheckpointError, match="already exists"):
        write_tokens(prepared, tmp_path / "out", format=format)


def test_documents_of_indexes_end_where_documents_end(prepared: PreparedData, tmp_path: Path) -> None:
    write_tokens(prepared, tmp_path / "d", format="datatrove")
    write_tokens(prepared, tmp_path / "m", format="megatron")
    ids = np.array(row(prepared, "train"))
    ends = np.fromfile(tmp_path / "d" / "train-00000.ds.index", dtype="<u8")
    assert ends.tolist() == (np.flatnonzero(ids == prepared.eos_id) + 1).tolist()
    raw = (tmp_path / "m" / "train.idx").read_bytes()
    magic, version, kind, sequences, documents = struct.unpack("<9sQBQQ", raw[:34])
    assert (magic, version, kind, sequences, documents) == (b"MMIDIDX\0\0", 1, 8, len(ends), len(ends) + 1)
    lengths = np.frombuffer(raw, "<i4", sequences, 34)
    pointers = np.frombuffer(raw, "<i8", sequences, 34 + 4 * sequences)
    assert np.cumsum(lengths).tolist() == ends.tolist() and (pointers[1:] == ends[:-1].astype(np.int64) * 2).all()
    assert np.frombuffer(raw, "<i8", documents, 34 + 12 * sequences).tolist() == list(range(documents))
    assert len(raw) == 34 + 12 * sequences + 8 * documents


def test_the_end_is_held_out_where_no_shard_is_named_after_validation(tmp_path: Path) -> None:
    for number in range(3):
        np.arange(number, number + 100, dtype="<u2").tofile(tmp_path / f"part-{number}.npy")
    np.arange(7, dtype="<u2").tofile(tmp_path / "test.npy")
    data = adopt(tmp_path, tmp_path / "cache", ByteSettings(), dtype="uint16", val_fraction=0.4)
    expected = [*range(100), *range(1, 101), *range(2, 102)]
    assert row(data, "train") == expected[:180] and row(data, "val") == expected[180:]
    capped = adopt(tmp_path, tmp_path / "cache", ByteSettings(), dtype="uint16", val_fraction=0.4, val_tokens=30)
    assert row(capped, "train") + row(capped, "val") == expected and len(row(capped, "val")) == 30


def test_numpy_files_with_a_header_are_read(tmp_path: Path) -> None:
    np.save(tmp_path / "train.npy", np.arange(200, dtype="<u4"))
    np.save(tmp_path / "val.npy", np.arange(50, dtype="<u4"))
    data = adopt(tmp_path, tmp_path / "cache", ByteSettings())
    assert row(data, "train") == list(range(200)) and row(data, "val") == list(range(50)) and data.dtype == "uint32"


def test_a_prepared_folder_is_used_as_it_is(prepared: PreparedData, tmp_path: Path) -> None:
    data = adopt(prepared.directory, tmp_path, ByteSettings(), order="blocks")
    assert data.directory == prepared.directory and data.fingerprint == prepared.fingerprint
    assert list(tmp_path.iterdir()) == []


def llmc(magic: int, version: int, count: int, tokens: int) -> bytes:
    return struct.pack("<3i", magic, version, count).ljust(1024, b"\0") + bytes(2 * tokens)


@pytest.mark.parametrize(
    ("name", "content", "settings", "said"),
    [
        ("a.txt", b"text", {}, "holds no token shards"),
        ("a.bin", b"abc", {}, "not a whole number of uint16"),
        ("a.bin", llmc(20240520, 1, 9, 8), {}, "its header names 9 tokens"),
        ("a.bin", llmc(1, 1, 9, 9), {"format": "llmc"}, "no header of llm.c"),
        ("a.idx", b"nothing", {}, "no index of Megatron"),
        ("a.npy", b"\x93NUMPY\x01\x00\x02\x00{}", {}, "damaged numpy file"),
        ("a.bin", np.full(999, 400, dtype="<u2").tobytes(), {}, "holds the id 400"),
        ("val.bin", bytes(80), {}, "no shard below"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, name: str, content: bytes, settings: dict[str, Any], said: str) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / name).write_bytes(content)
    with pytest.raises(DataError, match=said):
        adopt(tmp_path / "in", tmp_path / "cache", ByteSettings(), dtype="uint16", **settings)


def test_ids_need_the_tokenizer_that_made_them(prepared: PreparedData, tmp_path: Path) -> None:
    np.arange(200, dtype="<u2").tofile(tmp_path / "train.bin")
    with pytest.raises(ConfigError, match="token ids belong to the tokenizer that made them"):
        adopt(tmp_path, tmp_path, SubwordSettings(kind="bpe", vocab_size=280))
    with pytest.raises(ConfigError, match="there is no such format"):
        write_tokens(prepared, tmp_path / "x", format="parquet")
    tokenizer = tokenizers.load(prepared.tokenizer_dir)
    assert tokenizer.vocab_size == 280
