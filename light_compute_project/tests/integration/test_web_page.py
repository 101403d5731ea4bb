"""An exported page in a browser, opened from its file with the network off: continues, chats, stops, fits a phone."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from playwright.sync_api import Browser, Page, sync_playwright

from litgpt_core import tokenizers
from litgpt_core.checkpoint import save_directory
from litgpt_core.export.blocks import BlockMatrices, CheckpointSource
from litgpt_core.export.parity import SAMPLE
from litgpt_core.export.web.content import matrices_of
from litgpt_core.export.web.exporting import export_web
from litgpt_core.generation import Engine
from litgpt_core.generation.sampling import SamplingSettings
from litgpt_core.model.config import GPTConfig
from litgpt_core.model.gpt import GPT
from litgpt_core.model.init import initialize
from litgpt_core.prompts import Message, encode_prompt, save_style, style_named

pytestmark = pytest.mark.serial
NEW = 60


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A base model and the same with a chat style: random weights, 128 wide."""
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("page")
    tokenizer = tokenizers.train(tokenizers.SubwordSettings(kind="sentencepiece", vocab_size=400), [SAMPLE * 3])
    tokenizer.save(root / "tokenizer")
    model = GPT(
        GPTConfig(
            name="small", block_size=1200, n_layer=2, n_head=4, n_query_groups=2, n_embd=128, intermediate_size=256,
            vocab_size=400, padding_multiple=64, norm_class_name="RMSNorm", norm_qk=True, bias=False,
            parallel_residual=False, rotary_percentage=1.0, mlp_class_name="LLaMAMLP", tie_embeddings=True,
        )
    )  # fmt: skip
    initialize(model, seed=1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(4)) * 0.1)
    made = {}
    for name in ("base", "chat"):
        made[name] = save_directory(
            root / name, weights=model.state_dict(), config=model.config, tokenizer_dir=root / "tokenizer",
            hyperparameters={},
        )  # fmt: skip
    save_style(made["chat"], style_named("human_assistant"))
    (made["chat"] / "checksums.json").unlink()
    return made


def engine_of(checkpoint: Path) -> Engine:
    """Our engine with the page's weights, in float32."""
    source = CheckpointSource.read(checkpoint)
    matrices = BlockMatrices(source.weights, own={}, tied=True, bits=8)
    for path in matrices_of(source.config):
        matrices[path]
    return Engine(source.model_of(matrices.used()), source.tokenizer)


@pytest.fixture(scope="module")
def pages(checkpoints: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("exported")
    return {name: export_web(each, folder / f"{name}.html").path for name, each in checkpoints.items()}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("no chromium on this machine")
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield launched
        launched.close()


def opened(browser: Browser, path: Path, **viewport: int) -> tuple[Page, list[str]]:
    """The page once it is ready, offline, and everything that should not have happened."""
    size: Any = {"width": 1000, "height": 800} | viewport
    context, wrong = browser.new_context(viewport=size, offline=True), []
    tab = context.new_page()
    tab.on("pageerror", lambda error: wrong.append(f"script error: {error}"))
    tab.on("console", lambda message: wrong.append(message.text))
    tab.on("request", lambda request: None if request.url == path.as_uri() else wrong.append(request.url))
    tab.goto(path.as_uri())
    idle(tab)
    return tab, wrong


def idle(tab: Page) -> None:
    tab.wait_for_selector("body[data-state=idle]", timeout=60_000)


def settings(tab: Page, **values: str) -> None:
    for name, value in values.items():
        tab.fill(f"#{name}", value)


@pytest.mark.parametrize(("temperature", "seed"), [("0", ""), ("0.8", "7")])
def test_a_text_is_continued_as_the_engine_does(
    temperature: str, seed: str, browser: Browser, pages: Any, checkpoints: Any
) -> None:
    tab, wrong = opened(browser, pages["base"])
    settings(tab, temperature=temperature, seed=seed, most=str(NEW), top_k="50")
    tab.fill("#text", "The ships")
    tab.click("#send")
    idle(tab)
    engine = engine_of(checkpoints["base"])
    sampling = SamplingSettings(temperature=float(temperature), top_k=50)
    expected = engine.generate_text("The ships", max_new_tokens=NEW, sampling=sampling, seed=int(seed or 0))
    assert tab.input_value("#text") == ("The ships" + expected).replace("\r\n", "\n").replace("\r", "\n")
    assert "tokens" in tab.inner_text("#status")
    assert wrong == []
    if where := os.environ.get("LIGHT_COMPUTE_SCREENSHOTS"):
        tab.screenshot(path=f"{where}/web-base-{temperature}.png")


def test_a_conversation_is_streamed_and_can_be_stopped(browser: Browser, pages: Any, checkpoints: Any) -> None:
    tab, wrong = opened(browser, pages["chat"], width=390)
    settings(tab, temperature="0", most="20")
    tab.fill("#text", "Who went <b>out</b>?")
    tab.keyboard.press("Enter")
    idle(tab)
    engine, style = engine_of(checkpoints["chat"]), style_named("human_assistant")
    tokenizer = tokenizers.load(checkpoints["chat"])
    prompt = encode_prompt(style, tokenizer, [Message(role="user", content="Who went <b>out</b>?")])
    ids = list(engine.generate(prompt, max_new_tokens=20, sampling=SamplingSettings(temperature=0), seed=0))
    answer = tokenizer.decode(ids).partition("\nHuman:")[0]
    assert tab.text_content("#thread .assistant") == answer
    assert tab.text_content("#thread .user") == "Who went <b>out</b>?"
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390, "nothing scrolls sideways"

    settings(tab, most="1000", temperature="1", seed="3")
    tab.fill("#text", "And then?")
    tab.click("#send")
    tab.wait_for_selector("#thread > div:nth-child(4):not(:empty)")
    assert tab.get_attribute("body", "data-state") == "busy", "shown while it is written"
    tab.click("#stop")
    idle(tab)
    made = int(tab.inner_text("#status").split()[0])
    assert 0 < made < 1000
    if where := os.environ.get("LIGHT_COMPUTE_SCREENSHOTS"):
        tab.screenshot(path=f"{where}/web-chat-phone.png")
    tab.click("#new")
    assert tab.locator("#thread > div").count() == 0
    assert wrong == []


def test_a_page_that_was_cut_off_says_so(browser: Browser, pages: Any, tmp_path: Path) -> None:
    text = pages["base"].read_text(encoding="utf-8")
    start = text.index('class="weights">') + len('class="weights">')
    broken = tmp_path / "broken.html"
    broken.write_text(text[:start] + text[start + 4000 :], encoding="utf-8")
    tab = browser.new_context(offline=True).new_page()
    tab.goto(broken.as_uri())
    tab.wait_for_selector("body[data-state=broken]")
    assert tab.inner_text("#status").startswith("The page is incomplete")
