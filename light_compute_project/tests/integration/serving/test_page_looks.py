"""Phones, themes, contrast, keys; and the pictures in docs/images, drawn when LIGHT_COMPUTE_PICTURES=1 is set."""

from __future__ import annotations

import os

import pytest
from playwright.sync_api import expect
from tests.integration.serving.looks import IMAGES, PHONE, fits_its_width, no_faint_text

pytestmark = pytest.mark.serial

STORY = "Tell me a story about a lighthouse."


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_theme_follows_the_system_and_every_text_is_readable(open_page, scheme):
    chat = open_page(color_scheme=scheme)
    expect(chat.page.locator("html")).to_have_attribute("data-theme", scheme)
    no_faint_text(chat, at_least=8)
    chat.answer_with("# Title\n\nText with `code`, **bold**.\n\n> quoted\n\n```py\nx = 1\n```", exchange_id="x")
    chat.ask("One")
    chat.page.route("**/v1/ratings", lambda route: route.fulfill(json={"ok": True}))
    chat.button("Good answer").click()
    chat.refuse_with(400, "No.")
    chat.ask("Two")
    no_faint_text(chat, at_least=20)
    chat.page.locator("#model-button").click()
    no_faint_text(chat, at_least=26)
    chat.page.keyboard.press("Escape")
    chat.button("Settings").click()
    chat.page.get_by_label("Temperature", exact=True).fill("9")
    no_faint_text(chat, at_least=35)


@pytest.mark.nightly
def test_the_theme_can_be_switched_and_is_kept(open_page):
    chat = open_page(color_scheme="light")
    html = chat.page.locator("html")
    paper = chat.page.evaluate("() => getComputedStyle(document.body).backgroundColor")
    chat.button("Switch to the dark theme").click()
    expect(html).to_have_attribute("data-theme", "dark")
    assert chat.page.evaluate("() => getComputedStyle(document.body).backgroundColor") != paper
    chat.reload()
    expect(html).to_have_attribute("data-theme", "dark")
    chat.button("Switch to the light theme").click()
    chat.page.emulate_media(color_scheme="dark")
    expect(html).to_have_attribute("data-theme", "dark")  # the system's own choice was taken: it is followed again


@pytest.mark.nightly
def test_a_phone_has_the_list_in_a_drawer(open_page):
    chat = open_page(**PHONE)
    chat.answer_with("A word. " * 60 + "\n\n```\n" + "wide " * 80 + "\n```")
    chat.ask(STORY)
    assert fits_its_width(chat)
    drawer = chat.page.locator("#sidebar")
    expect(drawer).not_to_be_in_viewport()
    chat.button("Conversations").click()
    expect(drawer).to_be_in_viewport()
    expect(chat.button("New chat")).to_be_focused()
    chat.page.locator(".entry-title").click()
    expect(drawer).not_to_be_in_viewport()
    chat.button("Conversations").click()
    chat.page.mouse.click(380, 400)  # outside it
    expect(drawer).not_to_be_in_viewport()
    chat.button("Settings").click()
    assert fits_its_width(chat)
    expect(chat.page.get_by_label("Seed")).to_be_attached()
    chat.button("Close settings").click()


@pytest.mark.nightly
def test_enter_starts_a_new_line_on_a_phone(open_page):
    chat = open_page(**PHONE)
    chat.message.fill("One")
    chat.message.press("Enter")
    expect(chat.message).to_have_value("One\n")
    assert not chat.asked


def test_a_narrow_and_zoomed_window_needs_no_sideways_scrolling(open_page):
    chat = open_page(viewport={"width": 320, "height": 480})
    chat.answer_with("unbreakable" * 40)
    chat.ask("w" * 300)
    assert fits_its_width(chat)
    chat.page.locator("#model-button").click()
    assert fits_its_width(chat)


def test_everything_can_be_done_with_keys(chat):
    keys = chat.page.keyboard
    expect(chat.message).to_be_focused()
    keys.type("Line one")
    keys.press("Shift+Enter")
    keys.type("line two")
    assert not chat.asked
    keys.press("Enter")
    chat.finished()
    assert chat.asked[0]["messages"][0]["content"] == "Line one\nline two"
    expect(chat.message).to_be_focused()

    keys.press("ArrowUp")  # the last message, to be edited
    expect(chat.page.get_by_label("Edit your message")).to_be_focused()
    keys.press("Escape")
    expect(chat.button("Edit message")).to_be_focused()

    chat.page.locator("#model-button").focus()
    keys.press("Enter")
    keys.press("ArrowDown")
    chosen = chat.page.evaluate("() => document.activeElement.dataset.id")
    keys.press("Enter")
    expect(chat.page.locator("#model-name")).to_have_text(chosen)
    expect(chat.page.locator("#model-button")).to_be_focused()
    keys.press("ArrowDown")
    keys.press("Escape")
    expect(chat.page.locator("#model-popup")).to_be_hidden()

    chat.button("Settings").focus()
    keys.press("Enter")
    expect(chat.page.get_by_label("System prompt")).to_be_focused()
    keys.press("Escape")
    expect(chat.button("Settings")).to_be_focused()

    chat.page.locator(".entry-title").focus()
    keys.press("Tab")
    expect(chat.page.get_by_role("button", name="Rename Line one line two")).to_be_focused()
    keys.press("Enter")
    keys.type("Named")
    keys.press("Enter")
    expect(chat.page.locator(".entry-title")).to_be_focused()
    expect(chat.page.locator(".entry-text")).to_have_text("Named")


@pytest.mark.nightly
def test_the_skip_link_leads_to_the_message_box_and_every_stop_has_a_focus_ring(chat):
    keys, skip = chat.page.keyboard, chat.page.get_by_text("Skip to the message box")
    expect(skip).not_to_be_in_viewport()
    skip.focus()
    expect(skip).to_be_in_viewport()
    keys.press("Enter")
    expect(chat.message).to_be_focused()
    skip.focus()
    seen = set()
    for _ in range(12):
        keys.press("Tab")
        name, ring = chat.page.evaluate("""() => {
            const node = document.activeElement;
            const around = getComputedStyle(node.closest(".search, .composer") ?? node);
            const ring = around.outlineStyle !== "none" || around.boxShadow !== "none";
            return [node.id || node.className, node === document.body || ring];
        }""")
        seen.add(name)
        assert ring, name
    assert {"new-chat", "search", "model-button", "theme-button", "settings-button", "message", "starter"} <= seen


@pytest.mark.nightly
def test_every_control_has_a_name_and_answers_are_announced(chat):
    chat.answer_with("Forty-two.")
    chat.ask("One")
    nameless = chat.page.evaluate("""() => [...document.querySelectorAll("button, input, textarea")]
        .filter((node) => !(node.getAttribute("aria-label") || node.textContent.trim() || node.labels?.length))
        .map((node) => node.outerHTML)""")
    assert not nameless
    expect(chat.page.locator("#announcer")).to_have_text("Answer: Forty-two.")


@pytest.mark.nightly
def test_scrolling_up_during_an_answer_is_respected(chat):
    chat.answer_with("A line.\n\n" * 80)
    chat.ask("One")
    thread = chat.page.locator("#thread")
    expect(chat.button("Jump to the latest")).to_be_hidden()
    thread.evaluate("node => node.scrollTo(0, 0)")
    expect(chat.button("Jump to the latest")).to_be_visible()
    chat.button("Jump to the latest").click()
    expect(chat.button("Jump to the latest")).to_be_hidden()
    assert thread.evaluate("node => node.scrollHeight - node.scrollTop - node.clientHeight") < 80


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("serving-page", {"viewport": {"width": 1280, "height": 900}}),
        ("serving-page-phone", PHONE | {"viewport": {"width": 412, "height": 915}, "color_scheme": "dark"}),
    ],
)
def test_pictures(open_page, server, tmp_path, name, options):
    if not server.scripted:
        pytest.skip("the pictures show the scripted story")
    chat = open_page(**options)
    chat.ask("How do I coil a rope so that it does not tangle?")
    chat.page.evaluate("() => localStorage.removeItem('lightcompute.open')")
    chat.reload()  # with the welcome, as if New chat had been pressed
    chat.ask(STORY)
    chat.button("Good answer").click()
    expect(chat.button("Good answer")).to_have_attribute("aria-pressed", "true")
    expect(chat.page.locator(".code-keyword").first).to_be_attached()
    chat.message.blur()
    chat.page.mouse.move(5, 5)
    folder = IMAGES if os.environ.get("LIGHT_COMPUTE_PICTURES") == "1" else tmp_path
    picture = folder / f"{name}.png"
    chat.page.screenshot(path=picture)
    assert 10_000 < picture.stat().st_size < 200_000
