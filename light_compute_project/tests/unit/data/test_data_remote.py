"""Corpora at addresses: a server on loopback that refuses, cuts short and fails gives the same shards as the files."""

from __future__ import annotations

import json
import random
import re
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from litgpt_core.core.errors import DataError, EnvironmentProblem
from litgpt_core.data.prepare import PreparedData, prepare
from litgpt_core.data.settings import TextSettings
from litgpt_core.data.stream import remote
from litgpt_core.data.stream.inputs import list_inputs
from litgpt_core.data.stream_settings import RowsSettings
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
    with pytest.raises(EnvironmentProblem, match="s3fs"):
        list_inputs("s3://bucket/a", "*")
