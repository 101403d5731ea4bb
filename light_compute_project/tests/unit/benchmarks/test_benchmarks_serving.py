"""The load client counts what arrived and when, against a server that streams at a known pace."""

import asyncio
import json
import sys
from pathlib import Path

import psutil
import pytest
from benchmarks.command import run
from benchmarks.load_client import StreamedAnswer, load
from benchmarks.options import parse
from benchmarks.server_process import ServerSpec, running
from benchmarks.serving import measure, over_peers, percentile, summary
from benchmarks.tables import tables

from litgpt_core.core.errors import ConfigError, EnvironmentProblem


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, ending: str) -> None:
    """Three chunks, 50 ms apart, then the usage of six tokens; or another ending."""
    head = await reader.readuntil(b"\r\n\r\n")
    size = int(head.lower().partition(b"content-length: ")[2].split()[0])
    asked = json.loads(await reader.readexactly(size))
    assert asked["stream"] and asked["stream_options"] == {"include_usage": True}
    if ending == "refused":
        writer.write(b"HTTP/1.1 429 Too Many Requests\r\n\r\n")
    else:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        for _ in range(3):
            await asyncio.sleep(0.05)
            writer.write(b'data: {"choices":[{"text":"ab"}]}\n\n')
            await writer.drain()
        if ending == "error":
            writer.write(b'data: {"error":{"message":"no"}}\n\n')
        if ending == "whole":
            writer.write(b'data: {"choices":[],"usage":{"completion_tokens":6}}\n\ndata: [DONE]\n\n')
    await writer.drain()
    writer.close()


def loaded(ending: str, *, streams: int = 3, requests: int = 2) -> list[StreamedAnswer]:
    async def run() -> list[StreamedAnswer]:
        server = await asyncio.start_server(lambda r, w: answer(r, w, ending=ending), "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            return await load(port, [[{"prompt": "x"}] * requests for _ in range(streams)])

    return asyncio.run(run())


def test_every_answer_is_timed_and_counted():
    answers = loaded("whole")
    found = measure(answers)
    assert found["answers"] == 6 and found["tokens"] == 36
    assert 0.25 < found["seconds"] < 3, "two answers of 150 ms one after the other, three streams at once"
    assert found["tokens_per_s"] == pytest.approx(36 / found["seconds"])
    assert 0.04 < found["first_text_s"]["p50"] < found["answer_s"]["p50"]
    assert 0.04 < found["longest_gap_s"] < 1


@pytest.mark.parametrize(
    ("ending", "said"), [("refused", "429"), ("error", "ended a stream"), ("cut", "closed a stream before its end")]
)
def test_what_goes_wrong_is_an_error_and_no_number(ending, said):
    with pytest.raises(EnvironmentProblem, match=said):
        loaded(ending, streams=1, requests=1)


def test_percentiles_are_values_that_occurred():
    values = [float(i) for i in range(1, 101)]
    assert (percentile(values, 50), percentile(values, 99), percentile(values, 100)) == (50.0, 99.0, 100.0)
    assert percentile([7.0], 99) == 7.0


def trial(number: int, streams: int, rate: float) -> dict:
    latency = {"p50": 0.1, "p99": 0.2}
    rest = {"first_text_s": latency, "answer_s": latency, "longest_gap_s": 0.05}
    return {"round": number, "streams": streams, "tokens_per_s": rate, **rest}


def test_ratios_are_formed_within_a_round():
    trials = [trial(0, 1, 100.0), trial(0, 32, 300.0), trial(1, 1, 50.0), trial(1, 32, 200.0)]
    found = summary(trials, (1, 32))
    assert found["ratios"] == {"32": {"median": 3.5, "min": 3.0, "max": 4.0, "rounds": [3.0, 4.0]}}
    assert found["levels"][1]["tokens_per_s"] == {"median": 250.0, "min": 200.0, "max": 300.0}
    record = {"kind": "serve", "work": {"name": "10m", "n_params": 10, "new_tokens": 200}, **found}
    assert [table.row_count for table in tables(record)] == [2, 2]


def test_ours_is_compared_with_each_server_within_a_round():
    own = [trial(0, 1, 100.0), trial(0, 8, 300.0), trial(1, 1, 50.0), trial(1, 8, 200.0)]
    theirs = [trial(0, 1, 50.0), trial(0, 8, 60.0), trial(1, 1, 100.0), trial(1, 8, 50.0)]
    for one in theirs:
        one["first_text_s"] = {"p50": 0.1, "p99": 0.5}
    found = over_peers({"ours": own, "llamacpp-f16": theirs}, (1, 8))["llamacpp-f16"]
    assert found["1"]["tokens_per_s"]["rounds"] == [2.0, 0.5] and found["8"]["tokens_per_s"]["median"] == 4.5
    assert found["8"]["first_text_p99"]["rounds"] == [2.5, 2.5]
    record = {"kind": "serve", "work": {"name": "10m", "n_params": 10, "new_tokens": 200}, "server_memory_mb": 300.0}
    record |= summary(own, (1, 8)) | {"over_peers": {"llamacpp-f16": found}}
    record["peers"] = {"llamacpp-f16": summary(theirs, (1, 8)) | {"server_memory_mb": 200.0}}
    speed, latency = tables(record)
    assert speed.row_count == latency.row_count == 4 and "llamacpp-f16 200 MB" in str(latency.caption)
    assert list(speed.columns[5].cells) == ["", "1.25x", "", "4.50x"]


def test_a_server_that_ends_early_is_an_error_with_its_output(tmp_path):
    command = [sys.executable, "-c", "raise SystemExit('no such model')"]
    spec = ServerSpec(label="theirs", describes="", command=lambda folder, port: command)
    with (
        pytest.raises(EnvironmentProblem, match=r"theirs did not start:\nno such model"),
        running(spec, folder=tmp_path / "theirs", environment={}),
    ):
        pass


def test_a_server_is_measured_and_ended_with_the_block(tmp_path):
    def command(folder: Path, port: int) -> list[str]:
        (folder / "health").write_text("")
        return [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1"]

    spec = ServerSpec(label="any", describes="", command=command)
    with running(spec, folder=tmp_path / "any", environment={}) as server:
        assert 1 < server.peak_mb() < 500 and psutil.pid_exists(server.pid)
    assert not psutil.pid_exists(server.pid)


def test_a_folder_to_write_to_is_refused_before_anything_runs(tmp_path):
    with pytest.raises(ConfigError, match="is a folder"):
        run(parse(["serve", "--out", str(tmp_path)], description=""))
