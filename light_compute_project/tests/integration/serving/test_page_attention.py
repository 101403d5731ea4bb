"""What did it look at? The pane below an answer, in a real browser on a real model."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

pytestmark = pytest.mark.serial


def test_a_token_of_the_answer_is_chosen_and_what_it_was_written_from_is_marked(chat):
    if chat.server.scripted:
        pytest.skip("the stand-in has no model to look into")
    chat.allow_long_answers()
    chat.say("What did you look at?")
    expect(chat.answers.last).to_have_class(re.compile("writing"))
    expect(chat.page.locator(".answer-body").first).to_have_text(re.compile(".{6}", re.DOTALL))
    chat.stop.click()
    expect(chat.page.locator(".answer-notes").last).to_have_text("Stopped.")
    answer = chat.answers.last.inner_text()
    eye = chat.button("What did it look at?")
    with chat.page.expect_response("**/v1/attention") as response:
        eye.click()
    found = response.value.json()
    pane = chat.page.get_by_role("region", name="What did it look at?")
    expect(pane.get_by_role("status")).to_contain_text("it looked most at")
    assert "".join(found["answer"])[:20] == answer[:20]
    context, tokens = pane.locator(".attention-context"), pane.locator(".attention-answer button")
    assert "What did you look at?" in context.inner_text()
    expect(tokens.first).to_have_attribute("aria-pressed", "true")
    tokens.first.focus()
    for position in (1, 2):
        with chat.page.expect_response("**/v1/attention") as response:
            chat.page.keyboard.press("ArrowRight")
        found = response.value.json()
        expect(tokens.nth(position)).to_have_attribute("aria-pressed", "true")
        expect(tokens.nth(position)).to_be_focused()
        assert found["position"] == position and context.locator("span").count() == len(found["context"])
    place = max(range(len(found["rollout"])), key=lambda number: found["rollout"][number])
    pane.get_by_role("combobox").select_option("rollout")
    expect(pane.get_by_role("status")).to_contain_text(f"“{found['context'][place]}” {found['rollout'][place]:.0%}"[:4])
    read = "spans => spans.map((span) => Number(span.style.getPropertyValue('--weight')))"
    weights = context.locator("span").evaluate_all(read)
    most = max(found["rollout"][1:])
    assert all(abs(w - min(1, value / most)) < 1e-6 for w, value in zip(weights, found["rollout"], strict=True))
    eye.click()
    expect(pane).to_have_count(0)
