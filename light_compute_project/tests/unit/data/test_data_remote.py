"""Corpora at addresses: a server on loopback that refuses, cuts short and fails gives the same shards as the files."""

from __future__ import annotations

import json
import random
import re
import shutil
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from litgpt_core.core.errors import DataError, EnvironmentProblem
from litgpt_core.data import dataset
from litgpt_core.data.prepare import PreparedData, prepare
from litgpt_core.data.settings import TextSettings
from litgpt_core.data.stream import remote, shard_cache, token_row
from litgpt_core.data.stream.inputs import list_inputs
from litgpt_core.data.stream.token_writing import write_tokens
from litgpt_core.data.stream_settings import RowsSettings, TokensSettings
from litgpt_core.tokenizers.settings import ByteSettings

pytest.importorskip("fsspec")
pytest.importorskip("aiohttp")


class Server:
    """Files of a folder over HTTP with ranges; `trouble` says what becomes of the n-th request for a range."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.trouble, self.seen = folder, dict[int, str](), Counter[str]()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                outer.answer(self, body=False)

            def do_GET(self) -> None:
                outer.answer(self, body=True)

            def log_message(self, format: str, *args: Any) -> None:
                """Quiet."""

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.http.server_address[1]}"
        self.thread = threading.Thread(target=self.http.serve_forever, daemon=True)

    def answer(self, request: BaseHTTPRequestHandler, *, body: bool) -> None:
        path = self.folder / request.path.strip("/")
        if path.is_dir():
            names = sorted(each.name + ("/" if each.is_dir() else "") for each in path.iterdir())
            data, status = "".join(f'<a href="{name}">{name}</a>' for name in names).encode(), 200
        elif not path.is_file():
            data, status = b"", 404
        else:
            data, status = path.read_bytes(), 200
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", request.headers.get("Range", ""))
        trouble = ""
        if found and body and status == 200:
            data, status = data[int(found[1]) : int(found[2]) + 1], 206
            trouble = self.trouble.pop(self.seen["ranges"], "")
            self.seen["ranges"] += 1
        if trouble == "503":
            data, status = b"busy", 503
        request.send_response(status)
        request.send_header("Content-Length", str(len(data)))
        request.send_header("Accept-Ranges", "bytes")
        request.send_header("ETag", f'"{path.stat().st_size if path.is_file() else 0}"')
        request.end_headers()
        if body:
            request.wfile.write(data[: len(data) // 2] if trouble == "cut" else data)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(remote, "FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(remote, "BLOCK_BYTES", 4_000)
    (tmp_path / "in" / "more").mkdir(parents=True)
    rng = random.Random(0)
    for name in ("a.jsonl", "b.jsonl", "more/c.jsonl"):
        rows = [json.dumps({"text": "".join(rng.choices("abcdef \n", k=120))}) for _ in range(90)]
        (tmp_path / "in" / name).write_text("\n".join(rows))
    (tmp_path / "in" / "readme.md").write_text("no row")
    found = Server(tmp_path / "in")
    found.thread.start()
    yield found
    found.http.shutdown()
    found.thread.join()
    found.http.server_close()


def make(path: str, cache: Path, **more: Any) -> PreparedData:
    settings = RowsSettings(path=path, glob="**/*.jsonl", cache_dir=str(cache), workers=1, chunk_bytes=5_000, **more)
    return prepare(settings, ByteSettings())


def shards(prepared: PreparedData) -> list[bytes]:
    return [shard.path.read_bytes() for side in ("train", "val") for shard in prepared.shards(side)]


def test_an_address_gives_the_shards_of_the_files(
    server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    expected = shards(make(str(server.folder), tmp_path / "c"))
    server.trouble = {0: "503", 1: "503", 3: "cut", 8: "503", 9: "cut", 10: "503"}
    found = make(server.address + "/", tmp_path / "c", name="remote")
    assert shards(found) == expected and not server.trouble
    assert caplog.text.count("again in 0.0 s") == 6
    before = server.seen["ranges"]
    assert make(server.address + "/", tmp_path / "c", name="remote").directory == found.directory
    assert server.seen["ranges"] == before, "unchanged files are not read again"


def test_parquet_and_text_are_read_from_addresses(server: Server, tmp_path: Path) -> None:
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    rng = random.Random(1)
    texts = ["".join(rng.choices("abcdef \n", k=200)) for _ in range(200)]
    parquet.write_table(pa.table({"text": texts}), server.folder / "x.parquet", row_group_size=20)
    here = make(str(server.folder / "x.parquet"), tmp_path / "c", kind="parquet", name="here")
    there = make(f"{server.address}/x.parquet", tmp_path / "c", kind="parquet", name="there")
    assert shards(there) == shards(here)
    for number in range(9):
        (server.folder / f"{number}.txt").write_text(f"{number} " * (50 + number))
    data = prepare(TextSettings(path=server.address + "/", cache_dir=str(tmp_path / "c"), workers=1), ByteSettings())
    assert data.train_tokens + data.val_tokens == sum(2 * (50 + n) + 1 for n in range(9))


def test_a_server_that_stays_away_ends_the_preparation_with_the_address(server: Server, tmp_path: Path) -> None:
    server.trouble = dict.fromkeys(range(99), "503")
    with pytest.raises(DataError, match=r"/a\.jsonl cannot be read: .*503") as caught:
        make(server.address + "/", tmp_path / "c")
    assert "continues where this one ended" in str(caught.value) and server.seen["ranges"] == remote.ATTEMPTS


def test_what_is_not_there_is_said(server: Server) -> None:
    with pytest.raises(DataError, match="none of which matches"):
        list_inputs(server.address + "/", "**/*.csv")
    with pytest.raises(DataError, match="is not there, does not answer"):
        list_inputs("http://127.0.0.1:9/nothing.jsonl", "*")
    with pytest.raises(DataError, match="an address that fsspec knows"):
        list_inputs("xyz://bucket/a", "*")
    with pytest.raises(EnvironmentProblem, match="gcsfs"):
        list_inputs("gs://bucket/a", "*")


# ---- token shards at addresses


def adopted(server: Server, cache: Path, *, order: str = "blocks", folder: str = "prepared/") -> PreparedData:
    settings = TokensSettings(path=f"{server.address}/{folder}", cache_dir=str(cache), order=order)  # type: ignore[arg-type]
    return prepare(settings, ByteSettings())


def batches(prepared: PreparedData, first: int, last: int, *, world_size: int = 1) -> list[list[int]]:
    """Rows of some optimizer steps of four rows, whatever the number of processes is."""
    found: dict[int, list[int]] = {}
    for rank in range(world_size):
        loader = prepared.train_batches(
            block_size=32,
            seed=7,
            micro_batch_size=4 // world_size,
            global_batch_size=4,
            rank=rank,
            world_size=world_size,
        )
        for step in range(first, last):
            for row, ids in enumerate(loader[step][0].tolist()):
                found[step * 4 + rank * (4 // world_size) + row] = ids
    return [found[sample] for sample in sorted(found)]


@pytest.fixture
def local(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PreparedData:
    """A prepared folder of several shards, of which a copy lies at the server's address."""
    monkeypatch.setattr(dataset, "BLOCK_BYTES", 1_500)
    monkeypatch.setattr(dataset, "BLOCKS_AT_ONCE", 2)
    found = make(str(server.folder), tmp_path / "c", order="blocks")
    shutil.copytree(found.directory, server.folder / "prepared")
    return found


def test_training_from_a_bucket_reads_what_the_local_folder_holds_in_any_number_of_processes(
    server: Server, local: PreparedData, tmp_path: Path
) -> None:
    server.trouble = {0: "503", 2: "cut", 4: "503", 9: "503", 12: "cut", 13: "503", 15: "503"}
    found = adopted(server, tmp_path / "there")
    assert len(local.shards("train")) > 4 and found.train_tokens == local.train_tokens
    whole = batches(local, 0, 300)
    assert batches(found, 0, 120) == whole[: 4 * 120], "and then, with another cache and other processes,"
    assert batches(adopted(server, tmp_path / "elsewhere"), 120, 300, world_size=2) == whole[4 * 120 :]
    assert not server.trouble and found.val_bytes == local.val_bytes
    assert found.tokens("val").tolist() == local.tokens("val").tolist()
    mine, theirs = (each.val_batches(block_size=32, batch_size=8) for each in (local, found))
    assert all((mine[at][0] == theirs[at][0]).all() and (mine[at][1] == theirs[at][1]).all() for at in range(len(mine)))
    before = server.seen["ranges"]
    again = adopted(server, tmp_path / "there")
    assert again.directory == found.directory and batches(again, 0, 50) == whole[: 4 * 50]
    assert server.seen["ranges"] - before <= 4, "meta.json and manifest.json only"


def test_a_damaged_block_is_fetched_again_and_the_oldest_ones_make_room(
    server: Server, local: PreparedData, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = adopted(server, tmp_path / "there", order="full")
    expected = batches(local, 0, 60)
    batches(found, 0, 60)
    blocks = sorted((tmp_path / "there" / ".remote-blocks").glob("*/*.block"))
    assert len(blocks) > 4
    damaged = bytearray(blocks[0].read_bytes())
    damaged[len(damaged) // 2] ^= 1
    blocks[0].write_bytes(damaged)
    row = token_row.TokenRow(found.shards("train"), dtype=found.dtype)
    mine = token_row.TokenRow(local.shards("train"), dtype=local.dtype)
    assert row.span(0, row.tokens).tolist() == mine.span(0, mine.tokens).tolist()
    assert "is damaged, and is fetched again" in caplog.text
    sizes = {path: path.stat().st_size for path in blocks[0].parents[1].glob("*/*.block")}
    newest = max(sizes, key=lambda path: path.stat().st_mtime_ns)
    shard_cache.evict(tmp_path / "there" / ".remote-blocks", sum(sizes.values()) // 2, keep=newest)
    left = list((tmp_path / "there" / ".remote-blocks").glob("*/*.block"))
    assert newest in left and 0 < sum(sizes[path] for path in left) <= sum(sizes.values()) // 2
    assert batches(adopted(server, tmp_path / "there", order="full"), 0, 60) != [] and expected != []


def test_shards_of_others_at_addresses_are_recognised(server: Server, local: PreparedData, tmp_path: Path) -> None:
    for kind in ("nanogpt", "llmc", "megatron", "olmo", "datatrove"):
        write_tokens(local, server.folder / kind, format=kind)
        here = prepare(TokensSettings(path=str(server.folder / kind), cache_dir=str(tmp_path / "h")), ByteSettings())
        there = adopted(server, tmp_path / "t", order="full", folder=f"{kind}/")
        assert batches(there, 0, 5) == batches(here, 0, 5), kind
        assert there.meta["shard_format"] == kind


def test_a_folder_at_an_address_that_is_not_whole_is_refused(
    server: Server, local: PreparedData, tmp_path: Path
) -> None:
    place = server.folder / "prepared"
    (place / "train-00001.ds").unlink()
    with pytest.raises(DataError, match=r"train-00001\.ds is missing"):
        adopted(server, tmp_path / "a")
    (place / "tokenizer" / "tokenizer_config.json").write_text("{}")
    shutil.copy(local.directory / "train-00001.ds", place)
    with pytest.raises(DataError, match=r"tokenizer/tokenizer_config\.json is not the one"):
        adopted(server, tmp_path / "a")
    (place / "manifest.json").write_text("[")
    with pytest.raises(DataError, match=r"manifest\.json is not JSON"):
        adopted(server, tmp_path / "a")


def test_blocks_are_fetched_ahead_by_other_threads(server: Server, local: PreparedData, tmp_path: Path) -> None:
    row = token_row.TokenRow(adopted(server, tmp_path / "there").shards("train"), dtype="uint16")
    row.prefetch(np.arange(0, row.tokens - 33, 500), 33)
    wanted = sum(-(-shard.remote.bytes // remote.BLOCK_BYTES) for shard in row.shards if shard.remote)
    for _ in range(400):
        if len(list((tmp_path / "there" / ".remote-blocks").glob("*/*.block"))) >= wanted - 1:
            break
        time.sleep(0.01)
    before = server.seen["ranges"]
    row.span(0, row.tokens)
    assert server.seen["ranges"] - before <= 1
