"""The view of trainings, in a real browser: curves that grow, one run, and the way to a conversation with it."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from playwright.sync_api import expect
from tests.integration.serving.looks import IMAGES, PHONE, fits_its_width, no_faint_text

pytestmark = pytest.mark.serial


def write_run(folder: Path, *, losses: list[float], max_steps: int, summary: bool) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    config = {"seed": 1, "model": {"n_layer": 4}, "optim": {"lr": 0.001}, "trainer": {"max_steps": max_steps}}
    (folder / "config.yaml").write_text(json.dumps(config))
    (folder / "environment.json").write_text(json.dumps({"recorded_at": "2026-11-29T12:16:22+00:00"}))
    rows = [row(10 * n, loss) for n, loss in enumerate(losses, 1)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(each) + "\n" for each in rows))
    if summary:
        (folder / "final").mkdir(exist_ok=True)
        whole = {"val_loss": losses[-1], "val_bpb": losses[-1] / 2}
        closing = {"final": rows[-1], "best": rows[-1], "whole_split": whole, "train_s": 75.0, "n_params": 1_234_567}
        (folder / "summary.json").write_text(json.dumps(closing))
        (folder / "samples.txt").write_text("===== prompt: 'Once'\nOnce upon <b>a time</b>\n")


def row(step: int, loss: float) -> dict[str, float]:
    return {"step": step, "tokens": 640 * step, "elapsed_s": step / 2, "val_loss": loss, "train_loss": loss + 0.3}


@pytest.fixture
def runs(server) -> Path:
    """`chatty`, whose model the server offers, finished; `growing`, running; more in a sweep."""
    folder = server.folder / "runs"
    curve = [6 / (1 + n / 8) + 1.5 for n in range(40)]
    write_run(folder / "chatty", losses=curve, max_steps=400, summary=True)
    write_run(folder / "growing", losses=[value + 0.4 for value in curve[:20]], max_steps=400, summary=False)
    for n in range(3):
        losses = [value + (n + 1) / 5 for value in curve]
        write_run(folder / "lr" / f"lr-{n}", losses=losses, max_steps=400, summary=True)
    return folder


def test_curves_are_drawn_and_grow_with_the_run(open_page, runs):
    chat = open_page()
    chat.page.get_by_role("link", name="Runs").click()
    expect(chat.message).to_be_hidden()
    expect(chat.page.locator(".runs tbody tr")).to_have_count(5)
    expect(chat.page.locator("polyline.curve")).to_have_count(5)
    growing = chat.page.locator("tr", has_text="growing")
    expect(growing).to_contain_text("running")
    expect(growing).to_contain_text("200 of 400")
    with (runs / "growing" / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(row(210, 2.25)) + "\n")
    expect(growing).to_contain_text("210 of 400", timeout=15_000)
    expect(chat.page.locator(".reading", has_text="growing")).to_contain_text("2.25")


@pytest.mark.nightly
def test_curves_are_chosen_sorted_filtered_and_read_by_keys(open_page, runs):
    chat = open_page()
    chat.page.goto(f"{chat.server.base_url}/#runs")
    expect(chat.page.locator("polyline.curve")).to_have_count(5)
    chat.page.get_by_label("Curve of chatty").uncheck()
    expect(chat.page.locator("polyline.curve")).to_have_count(4)
    chat.page.get_by_label("Curve", exact=True).select_option("val_loss,train_loss")
    expect(chat.page.locator("polyline.curve")).to_have_count(8)
    chat.page.get_by_label("Along", exact=True).select_option("tokens")
    expect(chat.page.locator(".chart-plot")).to_have_attribute("aria-label", re.compile("along tokens"))
    chat.page.get_by_label("logarithmic").check()
    chat.page.locator(".chart-plot").focus()
    chat.page.keyboard.press("ArrowLeft")
    expect(chat.page.locator(".reading").first).to_contain_text("tokens")
    chat.button("Validation loss").click()
    expect(chat.page.locator(".runs tbody tr a").first).to_have_text("chatty")
    chat.button("Validation loss").click()
    expect(chat.page.locator(".runs tbody tr a").first).to_have_text("growing")
    chat.page.get_by_label("Filter runs").fill("lr-")
    expect(chat.page.locator(".runs tbody tr")).to_have_count(3)


def test_one_run_shows_its_samples_and_settings_and_leads_to_a_conversation(open_page, runs):
    chat = open_page()
    chat.page.goto(f"{chat.server.base_url}/#runs")
    chat.page.get_by_role("link", name="chatty").click()
    expect(chat.page.locator(".run-samples")).to_contain_text("Once upon <b>a time</b>")
    expect(chat.page.locator(".run-facts")).to_contain_text("1.235M")
    expect(chat.page.locator("polyline.curve")).to_have_count(2)
    chat.page.get_by_label("Filter settings").fill("optim")
    expect(chat.page.locator(".run-rest tbody tr")).to_have_text(["optim.lr0.001"])
    chat.page.go_back()
    expect(chat.page.locator(".runs tbody tr")).to_have_count(5)
    chat.page.go_forward()
    chat.button("Chat with this checkpoint").click()
    expect(chat.page.locator("#model-name")).to_have_text("chatty")
    expect(chat.message).to_be_focused()
    assert chat.ask("Hello")
    assert "#runs" not in chat.page.url


@pytest.mark.nightly
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_view_is_readable_in_both_themes_and_on_a_phone(open_page, runs, scheme):
    chat = open_page(color_scheme=scheme, **PHONE)
    for address in ("#runs", "#runs/chatty"):
        chat.page.goto(f"{chat.server.base_url}/{address}")
        expect(chat.page.locator("polyline.curve").first).to_be_visible()
        assert fits_its_width(chat)
        no_faint_text(chat, at_least=20)


@pytest.mark.nightly
def test_picture(open_page, runs, tmp_path):
    chat = open_page(viewport={"width": 1280, "height": 900})
    chat.page.goto(f"{chat.server.base_url}/#runs")
    expect(chat.page.locator("polyline.curve")).to_have_count(5)
    chat.page.mouse.move(700, 400)
    expect(chat.page.locator(".reading").first).to_contain_text("steps")
    picture = (IMAGES if os.environ.get("LIGHT_COMPUTE_PICTURES") == "1" else tmp_path) / "runs-page.png"
    chat.page.screenshot(path=picture)
    assert 10_000 < picture.stat().st_size < 200_000
