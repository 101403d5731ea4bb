"""chat.py as people start it: in a pipe, and at a terminal with Ctrl-C; and the examples, one after the other."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from litgpt_core import tokenizers
from litgpt_core.checkpoint import save_directory
from litgpt_core.model.config import GPTConfig
from litgpt_core.model.gpt import GPT
from litgpt_core.model.init import initialize

PROJECT = Path(__file__).resolve().parents[2]


@pytest.fixture
def model(shell: Any) -> Path:
    """runs/small: a random model that never ends a text by itself."""
    tokenizer = tokenizers.train(tokenizers.ByteSettings(), [])
    network = GPT(GPTConfig(n_layer=2, n_head=2, n_embd=32, block_size=64, vocab_size=257, lm_head_bias=True))
    initialize(network, seed=3)
    assert network.lm_head.bias is not None
    with torch.no_grad():
        network.lm_head.bias[tokenizer.eos_id] = -1e4
    (shell.folder / "tokenizer").mkdir()
    tokenizer.save(shell.folder / "tokenizer")
    return save_directory(
        shell.folder / "runs" / "small" / "final",
        weights=network.state_dict(),
        config=network.config,
        tokenizer_dir=shell.folder / "tokenizer",
        hyperparameters={},
    )


def piped(shell: Any, text: str, *arguments: str, expect: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        shell.command("chat.py", *arguments),
        input=text,
        cwd=shell.folder,
        env=shell.environment,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=120,
    )
    assert done.returncode == expect, done.stdout + done.stderr
    return done


def test_in_a_pipe_the_output_is_the_answers(shell: Any, model: Path) -> None:
    options = ("--seed", "1", "--max_new_tokens", "12", "--device", "cpu", "--compile", "false")
    one = piped(shell, "hi\n", *options)
    assert "you>" not in one.stdout and len(one.stdout) > 1 and one.stdout.endswith("\n")
    assert "Model: small (runs/small/final" in one.stderr and "only continues the text" in one.stderr
    named = piped(shell, "hi\n/quit\nnever asked\n", "small", *options)
    assert named.stdout == one.stdout, "the newest model and the named one are the same here"
    assert piped(shell, "").stdout == ""
    saved = piped(shell, "hi\n/save talk.jsonl", "small", "--style", "chatml", *options)
    assert "Prompt style: chatml" in saved.stderr
    [row] = (shell.folder / "talk.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(row)["messages"][0] == {"role": "user", "content": "hi"}


def test_mistakes_are_told_with_near_names_and_exit_code_2(shell: Any, model: Path) -> None:
    assert "did you mean small?" in piped(shell, "hi\n", "smal", expect=2).stderr
    assert "did you mean chatml" in piped(shell, "hi\n", "--style", "chatlm", expect=2).stderr
    assert "above 0 and at most 1" in piped(shell, "hi\n", "--top_p", "2", expect=2).stderr


class Terminal:
    """A process that believes somebody sits there."""

    def __init__(self, command: list[str], *, folder: Path, environment: dict[str, str]) -> None:
        import pty

        self.seen = ""
        self.process, self._end = pty.fork()
        if self.process == 0:
            os.chdir(folder)
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # ignored, for children too, in tests in the background
            os.execve(command[0], command, environment)

    def type(self, text: str) -> None:
        os.write(self._end, text.encode())

    def press_ctrl_c(self, *, until: str) -> None:
        """Press as a person does who reads the prompt first, and presses again if nothing happens for a long while.

        Python's line editor looks for signals only while it waits for a key: one that comes between the prompt and the
        waiting is kept until the next key.
        """
        time.sleep(0.5)
        self.type("\x03")
        try:
            self.wait_for(until, timeout=20)
        except AssertionError:
            self.type("\x03")
            self.wait_for(until)

    def wait_for(self, text: str, *, timeout: float = 90) -> None:
        """Read on until `text` comes; what came before it is dropped."""
        deadline = time.monotonic() + timeout
        while text not in self.seen:
            assert time.monotonic() < deadline, f"{text!r} never came; the last was {self.seen[-2000:]!r}"
            if select.select([self._end], [], [], 1)[0]:
                self.seen += os.read(self._end, 65536).decode(errors="replace")
        self.seen = self.seen.partition(text)[2]

    def exit_code(self, *, timeout: float = 30) -> int:
        deadline = time.monotonic() + timeout
        while (ended := os.waitpid(self.process, os.WNOHANG))[0] == 0:
            assert time.monotonic() < deadline, "it goes on"
            if select.select([self._end], [], [], 0.05)[0]:
                try:
                    os.read(self._end, 65536)
                except OSError:  # how Linux says that the other end is closed
                    time.sleep(0.05)
        self.process = 0
        return os.waitstatus_to_exitcode(ended[1])

    def close(self) -> None:
        if self.process:
            os.kill(self.process, signal.SIGKILL)
            os.waitpid(self.process, 0)
        os.close(self._end)


@pytest.mark.serial
@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals")
def test_at_a_terminal_ctrl_c_stops_the_answer_and_a_second_one_leaves(shell: Any, model: Path) -> None:
    command = shell.command("chat.py", "--max_new_tokens", "100000000", "--device", "cpu", "--compile", "false")
    terminal = Terminal(command, folder=shell.folder, environment=shell.environment)
    try:
        terminal.wait_for("you> ")
        terminal.type("hello\n")
        terminal.wait_for("plain PyTorch")  # the log says how it decodes when the first token is about to come
        terminal.press_ctrl_c(until="(stopped; press Ctrl-C again to quit)")
        terminal.wait_for("you> ")
        terminal.type("/stats\n")
        terminal.wait_for("latest answer: ")
        terminal.wait_for("of 64 tokens used")
        terminal.type("/tokens 5\n")
        terminal.wait_for("at most 5 tokens")
        terminal.wait_for("you> ")
        terminal.type("again\n")
        terminal.wait_for("you> ")
        terminal.press_ctrl_c(until="Ctrl-C again to quit")
        terminal.wait_for("you> ")
        time.sleep(0.5)
        terminal.type("\x03")
        assert terminal.exit_code() == 0
    finally:
        terminal.close()


@pytest.mark.nightly
def test_the_examples_run_in_order(shell: Any) -> None:
    said = []
    for name in (
        *("01_train_tiny.py", "02_generate.py", "03_chat_loop.py", "05_interpretability.py"),
        "04_quantization.py",
    ):
        said.append(shell.run([sys.executable, str(PROJECT / "examples" / name)]).stdout)
    assert "runs/example" in said[0]
    assert "greedy:" in said[1] and "ended by stop" in said[1]
    assert "best induction score" in said[3] and "without L0H0 the loss changes" in said[3]
    assert "source, bf16" in said[4] and "int4: " in said[4]
    assert "model: Rome." in said[2] and "model: Four." in said[2], "it has learnt its few facts"
    row = json.loads((shell.folder / "example_chat.jsonl").read_text(encoding="utf-8"))
    assert [message["role"] for message in row["messages"]] == ["user", "assistant"] * 3
    page = (PROJECT / "docs" / "inference.md").read_text(encoding="utf-8")
    for block in re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL):
        assert shell.run([sys.executable, "-c", block]).stdout.strip()
    answer = piped(shell, "Who are you?\n", "example", "--temperature", "0")
    assert answer.stdout == "A very small model.\n" and "Prompt style: human_assistant" in answer.stderr
