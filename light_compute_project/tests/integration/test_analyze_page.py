"""The report of `lcp analyze` in a browser: all views are drawn, by keyboard too, light and dark, without a request."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from playwright.sync_api import Page, sync_playwright

from litgpt_core import tokenizers
from litgpt_core.doctor.model_checks import build
from litgpt_core.interpret.analysis import compute, rounded
from litgpt_core.interpret.findings import findings
from litgpt_core.interpret.loading import windows_of
from litgpt_core.interpret.page import page as page_of
from litgpt_core.interpret.subject import Subject
from litgpt_core.interpret.views import VIEWS

pytestmark = pytest.mark.serial
TEXT = "The quick brown Fox (so it is said) jumps over the lazy dog. Then it sleeps. <b>x</b> & so on\n" * 20


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a small random model with every view but the one over checkpoints."""
    torch.set_num_threads(1)
    tokenizer = tokenizers.train(tokenizers.ByteSettings(), [TEXT])
    windows = windows_of(torch.tensor(tokenizer.encode(TEXT)).numpy(), 32)
    subject = Subject(
        model=build("MHA", vocab_size=257, padding_multiple=260, block_size=32),
        tokenizer=tokenizer,
        name="small <model>",
        windows=windows,
        bytes_per_token=1.0,
        counts=torch.bincount(windows.flatten(), minlength=257).numpy(),
        effort=0.2,
        prompt="Fox <i>a",
        against="Fox <i>b",
    )
    values = {"model": subject.name, "checkpoint": "here", "made": "2026-01-01T00:00:00+00:00", "dtype": "float32",
              "torch": torch.__version__, "held_out_tokens": windows.numel()}  # fmt: skip
    values |= compute(subject, [view.name for view in VIEWS], checkpoints=False)
    values["findings"] = findings(values["views"])
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(page_of(rounded(values)), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def opened(report: Path) -> Iterator[tuple[Page, list[str]]]:
    """The page in a tab, and everything that should not have happened."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("no chromium on this machine")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        tab, wrong = browser.new_page(viewport={"width": 1200, "height": 800}), []
        tab.on("pageerror", lambda error: wrong.append(f"script error: {error}"))
        tab.on("console", lambda message: wrong.append(message.text))
        tab.on("request", lambda request: None if request.url == report.as_uri() else wrong.append(request.url))
        tab.goto(report.as_uri())
        yield tab, wrong
        browser.close()


def test_every_view_is_drawn_and_nothing_is_requested(opened: tuple[Page, list[str]]) -> None:
    tab, wrong = opened
    names = [view.name for view in VIEWS if view.name != "dynamics"]
    for name in names:
        tab.locator(f"#{name}").scroll_into_view_if_needed()
        tab.wait_for_function(f"document.querySelector('#{name} > div').childElementCount > 0")
    assert tab.locator("nav a").count() == len(names) + 1
    assert tab.locator("text=This view cannot be drawn").count() == 0
    assert tab.locator("#left-out li").count() == 1
    assert tab.locator("h1").inner_text() == "small <model>"
    assert wrong == []


def test_the_keyboard_moves_between_views_and_inside_charts(opened: tuple[Page, list[str]]) -> None:
    tab, wrong = opened
    tab.evaluate("window.scrollTo(0, 0)")
    tab.keyboard.press("j")
    assert tab.evaluate("document.activeElement.id") == "budget"
    tab.keyboard.press("j")
    assert tab.evaluate("document.activeElement.id") == "surprisal"
    tab.keyboard.press("k")
    assert tab.evaluate("document.activeElement.id") == "budget"
    chart = tab.locator("#heads canvas")
    chart.focus()
    tab.keyboard.press("ArrowDown")
    tab.keyboard.press("ArrowDown")
    tab.keyboard.press("ArrowRight")
    assert tab.locator("#heads .readout").inner_text().startswith("L1H1 ")
    tab.locator("#attention").get_by_role("button", name="hidden").press("Enter")
    assert tab.locator("#attention").get_by_role("button", name="hidden").get_attribute("aria-pressed") == "true"
    assert wrong == []


def test_light_and_dark_differ_and_charts_follow(opened: tuple[Page, list[str]]) -> None:
    tab, wrong = opened
    before = tab.locator("#heads canvas").evaluate("canvas => canvas.toDataURL()")
    background = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    tab.locator("h1").click()
    tab.keyboard.press("t")
    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") != background
    assert tab.locator("#heads canvas").evaluate("canvas => canvas.toDataURL()") != before
    tab.keyboard.press("t")
    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == background
    assert wrong == []


def test_a_narrow_window_does_not_scroll_sideways(opened: tuple[Page, list[str]]) -> None:
    tab, _ = opened
    tab.set_viewport_size({"width": 390, "height": 800})
    tab.wait_for_timeout(100)
    assert tab.evaluate("document.documentElement.scrollWidth") <= 391
