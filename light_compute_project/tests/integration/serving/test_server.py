"""scripts/serve.py as a separate process: OpenAI's client, many clients, clients that disconnect, signals."""

from __future__ import annotations

import json
import re
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import openai
import psutil
import pytest
from tests.integration.serving.served import PROJECT, Served, save_talker

HELLO = [{"role": "user", "content": "Hello"}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a chat model, below runs/."""
    folder = tmp_path_factory.mktemp("served")
    save_talker(folder)
    return folder


@pytest.fixture(scope="module")
def served(folder: Path) -> Iterator[Served]:
    """Without a model's name on the command line: it uses the model below runs/."""
    server = Served(folder, "--slots", "8")
    yield server
    server.stop()


@pytest.fixture(scope="module")
def narrow(folder: Path) -> Iterator[Served]:
    """One slot, slow, five seconds at most; one more request may wait."""
    options = ("--slots", "1", "--queue", "1", "--timeout", "5", "--compile", "false", "--max-tokens", "100000")
    server = Served(folder, "talker", "--no-chat-log", *options)
    yield server
    server.stop()


def wait_until(true: Callable[[], bool], *, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.02)


def test_openais_own_client(served, folder):
    client = served.client
    assert [model.id for model in client.models.list()] == ["talker"]
    words = {"model": "talker", "messages": HELLO, "max_tokens": 30, "temperature": 1.0, "seed": 5}
    whole = client.chat.completions.create(**words, logprobs=True, top_logprobs=2)
    text = whole.choices[0].message.content
    assert whole.usage.completion_tokens == len(whole.choices[0].logprobs.content) <= 30
    streamed = list(client.chat.completions.create(**words, stream=True, stream_options={"include_usage": True}))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in streamed if chunk.choices) == text
    counts = {"prompt_tokens", "completion_tokens", "total_tokens"}  # the second prompt may be in the cache already
    assert streamed[-1].usage.model_dump(include=counts) == whole.usage.model_dump(include=counts)
    greedy = [
        client.completions.create(model="talker", prompt="def ", max_tokens=9, temperature=0).choices[0].text
        for _ in range(2)
    ]
    assert greedy[0] == greedy[1]
    chunks = client.completions.create(model="talker", prompt="def ", max_tokens=9, temperature=0, stream=True)
    assert "".join(chunk.choices[0].text for chunk in chunks) == greedy[0]
    with pytest.raises(openai.NotFoundError, match="no model 'other'"):
        client.chat.completions.create(model="other", messages=HELLO)
    clamped = client.chat.completions.create(model="talker", messages=HELLO, max_tokens=5000).usage
    assert (clamped.max_tokens, clamped.max_tokens_requested) == (1024, 5000)
    lines = [json.loads(line) for line in (folder / "chat_history.jsonl").read_text().splitlines()]
    assert [line["user"] for line in lines] == ["Hello"] * 3 and lines[0]["assistant"] == text
    console = served.log.read_text()
    assert f"talker answers at {served.url}" in console and "uvicorn" not in console.lower()
    assert "talker answers at" in (folder / "logs" / "serve.log").read_text()


@pytest.mark.serial
def test_concurrent_requests_all_get_their_own_answer(served):
    words = {"model": "talker", "messages": HELLO, "max_tokens": 60, "temperature": 1.0}
    alone = [served.client.chat.completions.create(**words, seed=seed).choices[0].message.content for seed in range(6)]

    def ask(i: int) -> str:
        with served.client.chat.completions.create(**words, seed=i % 6, stream=True) as stream:
            return "".join(chunk.choices[0].delta.content or "" for chunk in stream)

    with ThreadPoolExecutor(32) as pool:
        together = list(pool.map(ask, range(32)))
    assert together == [alone[i % 6] for i in range(32)], "the text of a seed does not depend on other requests"
    assert served.metric("running") == served.metric("waiting") == 0


@pytest.mark.serial
def test_a_full_queue_refuses_requests_and_requests_time_out(narrow):
    words = {"model": "talker", "messages": HELLO, "max_tokens": 100_000}
    failed: list[Exception] = []

    def ask() -> None:
        try:
            narrow.client.completions.create(model="talker", prompt="x", max_tokens=100_000, temperature=0)
        except openai.APIStatusError as problem:
            failed.append(problem)

    asking = [threading.Thread(target=ask) for _ in range(2)]
    asking[0].start()
    wait_until(lambda: narrow.metric("running") == 1)
    asking[1].start()
    wait_until(lambda: narrow.metric("waiting") == 1)
    with pytest.raises(openai.RateLimitError) as caught:
        narrow.client.chat.completions.create(**words)
    assert int(caught.value.response.headers["retry-after"]) >= 1
    for thread in asking:
        thread.join(20)
    assert [problem.status_code for problem in failed] == [504, 504]
    assert narrow.client.completions.create(model="talker", prompt="x", max_tokens=2).usage.completion_tokens == 2


@pytest.mark.serial
@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_disconnects_frees_its_slot(narrow, stream):
    cancelled = 'requests_total{model="talker",outcome="cancelled"}'
    before = narrow.metric(cancelled)
    body = {"model": "talker", "prompt": "x", "max_tokens": 100_000, "temperature": 0, "stream": stream}
    raw = json.dumps(body).encode()
    lines = ("POST /v1/completions HTTP/1.1", "Host: 127.0.0.1", "Content-Type: application/json")
    head = "\r\n".join((*lines, f"Content-Length: {len(raw)}", "", "")).encode()
    with socket.create_connection(("127.0.0.1", narrow.port)) as connection:
        connection.sendall(head + raw)
        wait_until(lambda: narrow.metric("running") == 1)
        if stream:
            assert b"200 OK" in connection.recv(1000)
    wait_until(lambda: narrow.metric("running") == 0, seconds=4)
    wait_until(lambda: narrow.metric(cancelled) == before + 1)
    assert narrow.client.completions.create(model="talker", prompt="x", max_tokens=2).usage.completion_tokens == 2


def test_the_pages_python_runs_and_its_options_exist(served, shell):
    """docs/serving.md, with this server's port and model."""
    page = (PROJECT / "docs" / "serving.md").read_text(encoding="utf-8")
    [example] = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    program = example.replace(":8000", f":{served.port}").replace('"example"', '"talker"')
    done = shell.run([sys.executable, "-c", program])
    assert done.stdout.strip(), "the model's answer"
    known = shell.run(shell.command("serve.py", "--help")).stdout
    named = set(re.findall(r"`(--[a-z_-]+)", page))
    assert len(named) > 8
    assert not [option for option in named if f"{option} " not in known and f"{option},\n" not in known]


@pytest.mark.serial
def test_sigterm_lets_answers_finish_and_leaves_no_process(served):
    got: list[str] = []

    def ask() -> None:
        stream = served.client.completions.create(
            model="talker", prompt="x", max_tokens=1000, temperature=0, stream=True
        )
        got.extend(chunk.choices[0].text for chunk in stream)

    asking = threading.Thread(target=ask)
    asking.start()
    wait_until(lambda: bool(got))
    children = psutil.Process(served.process.pid).children(recursive=True)
    code = served.stop()
    asking.join(20)
    assert code in (0, -signal.SIGTERM), served.log.read_text()
    assert len("".join(got).encode(errors="replace")) > 100
    assert not [child for child in children if child.is_running()]
    assert "Traceback" not in served.log.read_text()


def test_errors_are_reported_before_anything_is_loaded(shell, folder):
    def refused(*options: str) -> str:
        return shell.run(shell.command("serve.py", str(folder / "runs" / "talker"), *options), expect=2).stderr

    assert "without an API key" in refused("--host", "0.0.0.0")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert "free port" in refused("--port", str(taken.getsockname()[1]))
    assert "temperature=-1" in refused("--temperature", "-1")
    (shell.folder / "runs").mkdir()
    nothing = shell.run(shell.command("serve.py"), expect=2).stderr
    assert "No model was found. Searched runs: no models" in nothing
    near = shell.run(shell.command("serve.py", str(folder / "runs" / "talkr")), expect=2).stderr
    assert "talker" in near
    corrupted = shell.folder / "runs" / "corrupted"
    shutil.copytree(folder / "runs" / "talker" / "final", corrupted)
    (corrupted / "model_config.yaml").write_text("n_layer: [")
    broken = shell.run(shell.command("serve.py", str(corrupted), "--port", "0"), expect=2).stderr
    assert "Traceback" not in broken and "corrupted" in broken
