"""From a base model over a dozen chats to a better model, every step the command that people type."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

THINGS = ("red car", "blue hat", "green cup", "black dog", "white cat", "old ship")


@pytest.fixture
def running(shell: Any) -> Any:
    """`running(*options)`: the base URL of a server in the shell's folder."""
    started: list[subprocess.Popen[bytes]] = []

    def _start(*options: str) -> str:
        command = shell.command("serve.py", *options, "--port", "0", "--log-file", "serve.log")
        log = shell.folder / f"console-{len(started)}.txt"
        with log.open("wb") as out:
            environment = shell.environment | {"OMP_NUM_THREADS": "1"}
            started.append(subprocess.Popen(command, cwd=shell.folder, stdout=out, stderr=out, env=environment))
        deadline = time.monotonic() + 120
        while " answers at http" not in (said := log.read_text(encoding="utf-8")):
            assert started[-1].poll() is None and time.monotonic() < deadline, said
            time.sleep(0.1)
        return said.partition(" answers at ")[2].split()[0]

    yield _start
    for process in started:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


@pytest.mark.serial
@pytest.mark.nightly
def test_chats_over_http_become_a_better_model_without_a_restart(shell: Any, running: Any) -> None:
    shell.train("+experiment=smoke", "model.block_size=128", "run.name=base", "logger=none", "trainer.sample_tokens=0")
    url = running("base", "--temperature", "0", "--max_new_tokens", "24")
    for i in range(12):
        message = f"What colour is the {THINGS[i % 6]}{' please' * (i // 6)}?"
        said = httpx.post(f"{url}/chat", json={"message": message}, timeout=60).json()
        assert said["chat_count"] == i + 1 and said["response"]
    assert httpx.get(f"{url}/stats").json() == {"chat_count": 12, "ready_for_finetuning": True}
    rows = [json.loads(line) for line in (shell.folder / "chat_history.jsonl").read_text().splitlines()]
    assert len(rows) == 12 and all(row["model"] == "base" for row in rows)

    quick = ("trainer.max_steps=30", "trainer.eval_interval=10", "trainer.save_interval=30", "optim.lr=3e-3")
    done = shell.train("+experiment=finetune_chat", "init_from=base", "run.name=better", "logger=none", *quick)
    assert "before and after" in done.stdout
    losses = shell.summary("better")["before_after"]
    before, after = (losses[key]["val_loss"] for key in ("before", "after"))
    assert after < before - 0.1, losses

    names = [model["id"] for model in httpx.get(f"{url}/v1/models").json()["data"]]
    deadline = time.monotonic() + 20
    while "better" not in names:
        assert time.monotonic() < deadline
        time.sleep(0.5)
        names = [model["id"] for model in httpx.get(f"{url}/v1/models").json()["data"]]
    asked = {"model": "better", "messages": [{"role": "user", "content": "What colour is the red car?"}]}
    answer = httpx.post(f"{url}/v1/chat/completions", json=asked, timeout=60).json()
    assert answer["model"] == "better" and answer["choices"][0]["message"]["content"]
    known = {model["id"]: model for model in httpx.get(f"{url}/v1/models").json()["data"]}
    assert known["better"]["chat"] and not known["base"]["chat"]


def test_too_few_chats_are_refused_with_their_number(shell: Any) -> None:
    shell.train("+experiment=smoke", "trainer.max_steps=4", "run.name=base", "logger=none", "trainer.sample_tokens=0")
    row = {"user": "Hi", "assistant": "Hello.", "conversation_id": "a"}
    lines = [json.dumps(row | {"conversation_id": str(i), "user": f"Hi {i}"}) for i in range(7)]
    Path(shell.folder / "chat_history.jsonl").write_text("\n".join(lines) + "\n")
    refused = shell.train("+experiment=finetune_chat", "init_from=runs/base", "logger=none", expect=2).stderr
    assert "7 usable conversations" in refused and "at least 10" in refused
    assert not list(shell.folder.glob("runs/finetune_chat/*")), "nothing of the run has begun"
