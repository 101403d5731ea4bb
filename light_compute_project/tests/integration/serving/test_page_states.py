"""Servers that are gone, locked, busy, or refuse; and answers that break off."""

from __future__ import annotations

import re
import time

import pytest
from playwright.sync_api import expect

pytestmark = pytest.mark.serial


def test_a_refused_request_shows_the_servers_message(chat):
    chat.refuse_with(400, "The conversation has 900 tokens; harbour reads 256.")
    chat.ask("One")
    expect(chat.page.locator(".error-card")).to_contain_text("The conversation has 900 tokens; harbour reads 256.")
    chat.answer_truly()
    chat.button("Try again").click()
    chat.finished()
    expect(chat.page.locator(".error-card")).to_have_count(0)
    assert chat.answers.last.inner_text()
    assert [asked["turn"] for asked in chat.asked] == [0, 0]


@pytest.mark.nightly
def test_a_message_that_failed_is_left_out_of_later_requests(chat):
    chat.refuse_with(400, "No.")
    chat.ask("One")
    chat.answer_truly()
    chat.ask("Two")
    assert chat.asked[-1]["messages"] == [{"role": "user", "content": "Two"}]


@pytest.mark.nightly
def test_a_busy_server_shows_how_long_to_wait(chat):
    chat.refuse_with(429, "The queue is full.", {"Retry-After": "2"})
    chat.ask("One")
    card = chat.page.locator(".error-card")
    expect(card).to_contain_text(re.compile(r"The queue is full\. Please wait [12] s\."))
    expect(chat.button("Try again")).to_be_disabled()
    expect(chat.button("Try again")).to_be_enabled(timeout=5000)
    expect(card).to_contain_text("You can try again now.")
    chat.answer_truly()
    chat.button("Try again").click()
    chat.finished()
    expect(card).to_have_count(0)


def test_the_page_reconnects_to_an_unreachable_server(chat):
    chat.page.route("**/v1/**", lambda route: route.abort())
    chat.page.route("**/health", lambda route: route.abort())
    chat.ask("One")
    expect(chat.page.get_by_role("alert")).to_contain_text("The server does not answer.")
    expect(chat.page.locator(".error-card")).to_contain_text("The server does not answer.")
    chat.page.unroute_all()
    expect(chat.page.locator("#banner")).to_be_hidden(timeout=10_000)
    chat.button("Try again").click()
    chat.finished()
    expect(chat.page.locator(".error-card")).to_have_count(0)


@pytest.mark.nightly
def test_a_page_opened_before_the_server_connects_by_itself(chat):
    for path in ("**/v1/**", "**/stats", "**/health"):
        chat.page.route(path, lambda route: route.abort())
    chat.page.reload()
    expect(chat.page.locator("#model-name")).to_have_text("Connecting…")
    expect(chat.page.get_by_role("alert")).to_contain_text("The server does not answer.")
    chat.page.unroute_all()
    expect(chat.page.locator("#model-name")).to_have_text(chat.server.chat_model, timeout=10_000)
    expect(chat.page.locator("#banner")).to_be_hidden()


def test_the_api_key_is_asked_for_and_kept_in_this_tab(chat):
    used = []

    def locked(route):
        used.append(route.request.headers.get("authorization"))
        if used[-1] == "Bearer right-key":
            route.continue_(headers={k: v for k, v in route.request.headers.items() if k != "authorization"})
        else:
            route.fulfill(status=401, json={"error": {"message": "A key is needed.", "type": "auth"}})

    for path in ("**/v1/**", "**/stats"):
        chat.page.route(path, locked)
    chat.page.reload()
    dialog = chat.page.get_by_role("dialog", name="API key")
    expect(dialog).to_be_visible()
    chat.button("Cancel").click()
    expect(chat.page.get_by_role("alert").first).to_contain_text("This server requires an API key.")
    chat.button("Enter the key").click()
    chat.page.get_by_label("Key", exact=True).fill("wrong-key")
    chat.page.keyboard.press("Enter")
    expect(dialog.get_by_text("The server refused this key.")).to_be_visible()
    chat.page.get_by_label("Key", exact=True).fill("right-key")
    chat.page.keyboard.press("Enter")
    expect(chat.page.locator("#model-name")).to_have_text(chat.server.chat_model)
    expect(dialog).to_be_hidden()
    expect(chat.page.locator("#banner")).to_be_hidden()
    assert set(used) == {None, "Bearer wrong-key", "Bearer right-key"}
    chat.reload()
    assert used[-1] == "Bearer right-key"
    assert chat.page.evaluate("() => JSON.stringify(localStorage)").count("right-key") == 0


def test_an_interrupted_answer_keeps_its_text_with_a_note(chat):
    delta = 'data: {"choices": [{"delta": {"content": "Half a sen"}}]}\n\n'
    chat.page.route("**/v1/chat/completions", lambda route: route.fulfill(content_type="text/event-stream", body=delta))
    assert chat.ask("One") == "Half a sen"
    expect(chat.page.locator(".error-card")).to_contain_text("The connection ended before the answer did.")


def test_an_error_in_the_middle_of_an_answer_is_shown(chat):
    body = 'data: {"choices": [{"delta": {"content": "Half"}}]}\n\ndata: {"error": {"message": "Out of memory."}}\n\n'
    chat.page.route("**/v1/chat/completions", lambda route: route.fulfill(content_type="text/event-stream", body=body))
    assert chat.ask("One") == "Half"
    expect(chat.page.locator(".error-card")).to_contain_text("Out of memory.")


@pytest.mark.nightly
def test_an_answer_at_the_length_limit_has_a_note(chat):
    body = 'data: {"choices": [{"delta": {"content": "Half"}, "finish_reason": "length"}]}\n\ndata: [DONE]\n\n'
    chat.page.route("**/v1/chat/completions", lambda route: route.fulfill(content_type="text/event-stream", body=body))
    chat.ask("One")
    expect(chat.page.locator(".answer-notes")).to_contain_text("Ended at a length limit")


def test_a_tab_closed_during_an_answer_keeps_the_text_so_far(chat):
    chat.allow_long_answers()
    chat.say("Tell me at length about the sea.")
    expect(chat.answers.last).to_have_class(re.compile("writing"))
    time.sleep(0.3)
    came = chat.answers.last.inner_text()
    chat.reload()
    assert chat.answers.last.inner_text().strip().startswith(came.strip())
    expect(chat.page.locator(".answer-notes")).to_contain_text("Not finished")


@pytest.mark.nightly
def test_full_storage_is_reported_and_the_answer_still_shown(chat):
    chat.page.evaluate("""() => {
        Storage.prototype.setItem = () => { throw new DOMException("full", "QuotaExceededError"); };
    }""")
    chat.answer_with("Shown anyway.")
    assert chat.ask("One") == "Shown anyway."
    expect(chat.page.locator(".toast").first).to_contain_text("The browser refuses to keep this")


@pytest.mark.nightly
def test_a_message_longer_than_the_server_reads_cannot_be_sent(chat):
    limit = chat.page.request.get(f"{chat.server.base_url}/v1/settings").json()["max_prompt_chars"]
    chat.message.fill("x" * (limit + 1))
    expect(chat.page.locator("#length-note")).to_contain_text(f"{limit + 1:,} of {limit:,} characters")
    expect(chat.button("Send")).to_be_disabled()
    chat.message.fill("x" * limit)
    expect(chat.button("Send")).to_be_enabled()


@pytest.mark.nightly
def test_a_tab_closed_before_a_regeneration_has_begun_keeps_the_older_answer(chat):
    chat.answer_with("The older answer.")
    chat.ask("One")
    chat.page.unroute_all()
    chat.page.route("**/v1/chat/completions", lambda route: None)  # never answered
    chat.button("Regenerate").click()
    expect(chat.stop).to_be_visible()
    chat.reload()
    expect(chat.answers).to_have_text(["The older answer."])
