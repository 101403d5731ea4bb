"""A model to serve, and scripts/serve.py over it as a separate process."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import openai
import torch

from litgpt_core import tokenizers
from litgpt_core.checkpoint import save_directory
from litgpt_core.model.config import GPTConfig
from litgpt_core.model.gpt import GPT
from litgpt_core.model.init import initialize
from litgpt_core.prompts import save_style, style_named

PROJECT = Path(__file__).resolve().parents[3]
SHAPE = {"n_layer": 2, "n_head": 4, "n_embd": 64, "block_size": 8192, "vocab_size": 256, "padding_multiple": 256}


class Served:
    """A running server."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        self.log = folder / "console.txt"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        command = [sys.executable, str(PROJECT / "scripts" / "serve.py"), "--port", str(self.port), *options]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        with self.log.open("wb") as out:
            self.process = subprocess.Popen(command, cwd=folder, stdout=out, stderr=out, env=environment)
        deadline = time.monotonic() + 120
        while True:
            assert self.process.poll() is None, self.log.read_text()
            try:
                httpx.get(f"{self.url}/health", timeout=5)
                return
            except httpx.TransportError:
                assert time.monotonic() < deadline, self.log.read_text()
                time.sleep(0.1)

    @property
    def client(self) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key="unused", max_retries=0, timeout=60)

    def metric(self, name: str) -> float:
        lines = httpx.get(f"{self.url}/metrics").text.splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"light_compute_{name}"))

    def stop(self, number: signal.Signals = signal.SIGTERM, *, within: float = 30) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(within)


def save_talker(folder: Path, **shape: int) -> None:
    """A chat model with random weights, as runs/talker."""
    model = GPT(GPTConfig(**(SHAPE | shape))).eval()
    initialize(model, seed=3)
    words = folder / "tokenizer"
    words.mkdir()
    tokenizers.train(tokenizers.ByteSettings(), []).save(words)
    save_style(words, style_named("human_assistant"))
    with torch.no_grad():
        save_directory(
            folder / "runs" / "talker" / "final",
            weights=model.state_dict(),
            config=model.config,
            tokenizer_dir=words,
            hyperparameters={},
        )
