"""A corpus and token shards in a bucket of a real S3 server on loopback, behind a proxy that answers 503 now and then.

Nightly: the server (moto) comes through uv, in an environment of its own.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import shutil
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from litgpt_core.core.errors import EnvironmentProblem
from litgpt_core.core.uv import find_uv
from litgpt_core.data.prepare import PreparedData, prepare
from litgpt_core.data.stream import remote
from litgpt_core.data.stream_settings import RowsSettings, TokensSettings
from litgpt_core.tokenizers.settings import ByteSettings

pytestmark = [pytest.mark.nightly, pytest.mark.serial, pytest.mark.timeout(600)]
pytest.importorskip("s3fs")
MOTO = "moto[server]==5.2.5"
BUCKET = "corpora"


class Proxy:
    """Passes requests on to the server; every third request for a range is answered 503 as S3 does when it is busy."""

    def __init__(self, port: int) -> None:
        self.seen, outer = Counter[str](), self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                outer.seen[self.command] += 1
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if self.command == "GET" and "Range" in self.headers:
                    outer.seen["ranges"] += 1
                    if outer.seen["ranges"] % 3 == 1:
                        outer.seen["503"] += 1
                        self.answer(503, [], b"<Error><Code>SlowDown</Code><Message>busy</Message></Error>")
                        return
                upstream = http.client.HTTPConnection("127.0.0.1", port)
                upstream.request(self.command, self.path, body=body, headers=dict(self.headers))
                reply = upstream.getresponse()
                self.answer(reply.status, reply.getheaders(), reply.read())
                upstream.close()

            do_HEAD = do_PUT = do_POST = do_DELETE = do_GET

            def answer(self, status: int, headers: list[tuple[str, str]], data: bytes) -> None:
                kept = [(k, v) for k, v in headers if k.lower() not in ("connection", "transfer-encoding")]
                length = next((v for k, v in kept if k.lower() == "content-length"), str(len(data)))
                self.send_response(status)
                for key, value in kept:
                    if key.lower() != "content-length":
                        self.send_header(key, value)
                self.send_header("Content-Length", length)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(data)

            def log_message(self, format: str, *args: Any) -> None:
                """Quiet."""

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.http.server_address[1]}"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of an S3 server."""
    try:
        uv = find_uv("moto", variable="PATH", example="a folder with uv")
    except EnvironmentProblem as problem:
        pytest.skip(str(problem))
    environment = {key: value for key, value in os.environ.items() if not key.startswith("AWS_")}
    run = [uv, "run", "--quiet", "--no-project", "--isolated", "--no-config", "--with", MOTO]
    there = subprocess.run(
        [*run, "python", "-c", "import moto"], env=environment, capture_output=True, text=True, check=False
    )
    if there.returncode:
        pytest.skip(f"moto cannot be had: {there.stderr.strip()[-300:]}")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    log = (tmp_path_factory.mktemp("moto") / "log").open("wb")
    process = subprocess.Popen(
        [*run, "moto_server", "-H", "127.0.0.1", "-p", str(port)], env=environment, stdout=log, stderr=log
    )
    end = time.monotonic() + 90
    while True:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/moto-api/", timeout=5).close()
            break
        except (urllib.error.URLError, ConnectionError):
            assert time.monotonic() < end and process.poll() is None, "moto_server did not start"
            time.sleep(0.2)
    yield port
    process.terminate()
    process.wait(timeout=30)


@pytest.fixture
def bucket(server: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Any, Proxy]]:
    """A file system of the bucket, and the proxy that it goes through."""
    import s3fs

    proxy = Proxy(server)
    for name, value in (
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
        ("AWS_DEFAULT_REGION", "us-east-1"),
        ("AWS_ENDPOINT_URL", proxy.address),
        ("AWS_MAX_ATTEMPTS", "1"),
    ):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(remote, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(remote, "BLOCK_BYTES", 50_000)
    s3fs.S3FileSystem.clear_instance_cache()
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    files = s3fs.S3FileSystem()
    if not files.exists(BUCKET):
        files.mkdir(BUCKET)
    yield files, proxy
    s3fs.S3FileSystem.clear_instance_cache()
    proxy.http.shutdown()


def rows(prepared: PreparedData, first: int, last: int) -> list[Any]:
    loader = prepared.train_batches(block_size=64, seed=3, micro_batch_size=4, global_batch_size=4)
    return [loader[step][0].tolist() for step in range(first, last)]


def test_text_in_a_bucket_gives_the_shards_and_the_shards_in_a_bucket_the_batches(
    bucket: tuple[Any, Proxy], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files, proxy = bucket
    rng = random.Random(0)
    (tmp_path / "rows").mkdir()
    for number in range(4):
        texts = ["".join(rng.choices("abcdefgh \n", k=300)) for _ in range(400)]
        (tmp_path / "rows" / f"{number}.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
    files.put(str(tmp_path / "rows"), f"{BUCKET}/text/", recursive=True)
    options: dict[str, Any] = {"chunk_bytes": 60_000, "workers": 1, "cache_dir": str(tmp_path / "cache")}
    local = prepare(RowsSettings(path=str(tmp_path / "rows"), name="here", **options), ByteSettings())
    there = prepare(
        RowsSettings(path=f"s3://{BUCKET}/text/", name="there", glob="**/*.jsonl", **options), ByteSettings()
    )
    shards = [shard.path for side in ("train", "val") for shard in local.shards(side)]
    assert len(shards) > 5
    assert all(path.read_bytes() == (there.directory / path.name).read_bytes() for path in shards)
    files.put(str(local.directory), f"{BUCKET}/tokens/", recursive=True)
    shutil.rmtree(tmp_path / "cache")
    settings = TokensSettings(path=f"s3://{BUCKET}/tokens/", cache_dir=str(tmp_path / "other"), order="blocks")
    found = prepare(settings, ByteSettings())
    whole = prepare(RowsSettings(path=str(tmp_path / "rows"), name="here", order="blocks", **options), ByteSettings())
    assert rows(found, 0, 200) == rows(whole, 0, 200)
    assert proxy.seen["503"] > 5 and "again in 0.0 s" in caplog.text
    before = proxy.seen["ranges"]
    assert rows(prepare(settings, ByteSettings()), 200, 400) == rows(whole, 200, 400), "exact continuation"
    assert proxy.seen["ranges"] - before < 10, "blocks come from the disk"
