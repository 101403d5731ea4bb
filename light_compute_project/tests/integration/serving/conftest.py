"""A browser, and what it looks at: the scripted stand-in, and scripts/serve.py with two tiny checkpoints."""

from __future__ import annotations

import json
import math
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Dialog,
    Locator,
    Request,
    Route,
    expect,
    sync_playwright,
)

from litgpt_core import tokenizers
from litgpt_core.checkpoint import save_directory
from litgpt_core.model.config import GPTConfig
from litgpt_core.model.gpt import GPT
from litgpt_core.model.init import initialize
from litgpt_core.prompts import save_style, style_named

PROJECT = Path(__file__).resolve().parents[3]
STATIC = PROJECT / "src" / "litgpt_core" / "serving" / "static"
SERVE = PROJECT / "scripts" / "serve.py"
SLOWLY = ["--compile", "false", "--max-tokens", "6144"]  # some seconds for the longest answer: time to stop it
QUIET_BROWSER = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
SHAPE: dict[str, Any] = {
    "n_layer": 4,
    "n_head": 4,
    "n_embd": 128,
    "block_size": 6400,
    "vocab_size": 256,
    "padding_multiple": 256,
}


@dataclass(frozen=True, kw_only=True)
class Server:
    """A running server and the names of two of its models: one to start with, which chats, and a base model."""

    base_url: str
    chat_model: str
    base_model: str
    scripted: bool
    """Whether it is the stand-in, whose words the tests know."""
    folder: Path
    """Where it was started."""


def _started(command: list[str], port: int, folder: Path) -> Iterator[str]:
    """The base URL once it answers; the process ends with the iterator."""
    base_url = f"http://127.0.0.1:{port}"
    log = folder / "server.log"
    with log.open("wb") as out:
        process = subprocess.Popen(command, cwd=folder, stdout=out, stderr=subprocess.STDOUT, env=_environment(folder))
    try:
        deadline = time.monotonic() + 120
        while True:
            assert process.poll() is None, log.read_text(encoding="utf-8", errors="replace")
            try:
                urllib.request.urlopen(f"{base_url}/health", timeout=5).close()
                break
            except (urllib.error.URLError, OSError):
                assert time.monotonic() < deadline, log.read_text(encoding="utf-8", errors="replace")
                time.sleep(0.1)
        yield base_url
    finally:
        process.terminate()
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _environment(folder: Path) -> dict[str, str]:
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    own = {"HOME": str(folder), "XDG_CACHE_HOME": cache, "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"}
    return os.environ | own


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


LETTERS = "abcdefghijklmnopqrstuvwxyz "
END = math.log(len(LETTERS) / 300)
"""Score of the end of an answer, where letters have 0: about one token in 300."""


def _save_tiny(directory: Path, *, seed: int) -> Path:
    """A checkpoint directory of a random model over bytes, which writes letters: what a page makes of other bytes (of
    control characters, of Markdown, of half a character) is for tests that know what they are.
    """
    model = GPT(GPTConfig(**SHAPE, lm_head_bias=True)).eval()
    initialize(model, seed=seed)
    words = directory.parent / "tokenizer"
    words.mkdir(parents=True)
    tokenizer = tokenizers.train(tokenizers.ByteSettings(), [])
    tokenizer.save(words)
    with torch.no_grad():
        model.lm_head.bias.fill_(-50.0)
        model.lm_head.bias[tokenizer.encode(LETTERS)] = 0.0
        model.lm_head.bias[tokenizer.eos_id] = END
        return save_directory(
            directory, weights=model.state_dict(), config=model.config, tokenizer_dir=words, hyperparameters={}
        )


ON_THE_STAND_IN = ("test_page_looks", "test_page_text")
"""Files whose tests are about what the page makes of words that the tests know; the others run on the real server."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Each file's server; LIGHT_COMPUTE_BOTH_SERVERS=1 runs every test on both."""
    if "server" in metafunc.fixturenames:
        own = "stand_in" if metafunc.module.__name__.rpartition(".")[2] in ON_THE_STAND_IN else "serve"
        both = ["stand_in", "serve"] if os.environ.get("LIGHT_COMPUTE_BOTH_SERVERS") else [own]
        metafunc.parametrize("server", both, indirect=True, scope="session")


@pytest.fixture(scope="session")
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The stand-in or the real server, as `pytest_generate_tests` says."""
    folder, port = tmp_path_factory.mktemp("served"), _free_port()
    if request.param == "stand_in":
        command = [sys.executable, str(Path(__file__).with_name("stand_in.py")), str(port), str(STATIC)]
        names, scripted = ("scripted-answers", "shakespeare-char"), True
    else:
        names, scripted = ("chatty", "plain"), False
        _save_tiny(folder / "runs" / "plain" / "final", seed=1)
        save_style(_save_tiny(folder / "runs" / "chatty" / "final", seed=2), style_named("human_assistant"))
        command = [sys.executable, str(SERVE), "chatty", "--port", str(port), *SLOWLY]
    for base_url in _started(command, port, folder):
        yield Server(base_url=base_url, chat_model=names[0], base_model=names[1], scripted=scripted, folder=folder)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One for each file: as long as it is open, Playwright's event loop runs in this thread, and nobody else's may."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("no chromium on this machine")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=found, args=QUIET_BROWSER)
        yield started
        started.close()


class ChatPage:
    """One browser tab on the page, with what it sent and everything that should not have happened."""

    def __init__(self, context: BrowserContext, server: Server) -> None:
        self.context, self.server = context, server
        self.page = context.new_page()
        self.asked: list[dict[str, Any]] = []
        """Bodies of the requests for answers."""
        self.rated: list[dict[str, Any]] = []
        """Bodies of the ratings."""
        self.wrong: list[str] = []
        """Script errors, refusals of the content security policy, dialogs, requests to other places."""
        self.page.on("request", self._note)
        self.page.on("pageerror", lambda error: self.wrong.append(f"script error: {error}"))
        self.page.on("dialog", self._dialog)
        self.page.on("popup", lambda popup: self.wrong.append(f"popup: {popup.url}"))
        self.page.on("console", self._console)
        self.message: Locator = self.page.locator("#message")
        self.answers: Locator = self.page.locator(".answer-body")
        self.stop: Locator = self.page.get_by_role("button", name="Stop the answer")

    def _note(self, request: Request) -> None:
        if not request.url.startswith(f"{self.server.base_url}/"):
            self.wrong.append(f"request to {request.url}")
        if request.method == "POST" and request.url.endswith("/v1/chat/completions"):
            self.asked.append(json.loads(request.post_data or "null"))
        if request.method == "POST" and request.url.endswith("/v1/ratings"):
            self.rated.append(json.loads(request.post_data or "null"))

    def _dialog(self, dialog: Dialog) -> None:
        self.wrong.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def _console(self, message: ConsoleMessage) -> None:
        if message.type == "error" and not message.text.startswith("Failed to load resource"):
            self.wrong.append(f"console: {message.text}")

    def open(self) -> ChatPage:
        self.page.goto(self.server.base_url)
        expect(self.page.locator("#model-button")).to_be_enabled()
        return self

    def reload(self) -> None:
        self.page.reload()
        expect(self.page.locator("#model-button")).to_be_enabled()

    def button(self, name: str) -> Locator:
        return self.page.get_by_role("button", name=name, exact=True)

    def say(self, text: str) -> None:
        """Send, and return at once."""
        self.message.fill(text)
        self.button("Send").click()

    def ask(self, text: str) -> str:
        """Send, wait for the whole answer, and return it."""
        self.say(text)
        self.finished()
        return self.answers.last.inner_text()

    def allow_long_answers(self) -> None:
        """So long that there is time to do something meanwhile; not ended by the model, whose weights are random."""

        def never_ending(route: Route) -> None:
            route.continue_(post_data=json.dumps(route.request.post_data_json | {"ignore_eos": True}))

        self.page.route("**/v1/chat/completions", never_ending)
        self.page.evaluate("""async () => {
            const limit = (await (await fetch("/v1/settings")).json()).max_tokens;
            localStorage.setItem("lightcompute.settings", JSON.stringify({max_tokens: limit}));
        }""")
        self.reload()

    def finished(self) -> None:
        expect(self.button("Send")).to_be_visible(timeout=60_000)

    def answer_with(self, *deltas: str, exchange_id: str | None = None) -> None:
        """From now on answers consist of these deltas."""

        def event(delta: dict[str, str], **more: object) -> str:
            choice = {"index": 0, "delta": delta, "finish_reason": more.pop("finish_reason", None)}
            return f"data: {json.dumps({'choices': [choice], **more})}\n\n"

        last = {"exchange_id": exchange_id} if exchange_id else {}
        body = "".join(event({"content": delta}) for delta in deltas) + event({}, finish_reason="stop", **last)
        self.page.route(
            "**/v1/chat/completions",
            lambda route: route.fulfill(content_type="text/event-stream", body=f"{body}data: [DONE]\n\n"),
        )

    def refuse_with(self, status: int, message: str, headers: dict[str, str] | None = None) -> None:
        """From now on requests for answers are refused."""
        error = {"error": {"message": message, "type": "x", "param": None, "code": None}}
        self.page.route(
            "**/v1/chat/completions", lambda route: route.fulfill(status=status, headers=headers, json=error)
        )

    def answer_truly(self) -> None:
        self.page.unroute("**/v1/chat/completions")


@pytest.fixture
def open_page(browser: Browser, server: Server) -> Iterator[Callable[..., ChatPage]]:
    """`open_page(**options of a browser context)`; at the end nothing may have gone wrong in any of them."""
    opened: list[ChatPage] = []

    def _open(**options: Any) -> ChatPage:
        context = browser.new_context(**({"viewport": {"width": 1280, "height": 800}} | options))
        context.set_default_timeout(20_000)
        opened.append(ChatPage(context, server))
        return opened[-1].open()

    yield _open
    for chat in opened:
        chat.context.close()
    assert not [wrong for chat in opened for wrong in chat.wrong]


@pytest.fixture
def chat(open_page: Callable[..., ChatPage]) -> ChatPage:
    """The page on a desktop, open and connected."""
    return open_page()
