"""What people do with the page, in a real browser."""

from __future__ import annotations

import json
import re
import time

import pytest
from playwright.sync_api import Page, expect

pytestmark = pytest.mark.serial

LONG = "Tell me at length about the sea."

WATCH_GROWTH = """() => {
    window.sizes = [];
    new MutationObserver(() => {
        const body = document.querySelector(".answer-body.writing");
        const size = body ? body.textContent.length : 0;
        if (size > (window.sizes.at(-1) ?? 0)) window.sizes.push(size);
    }).observe(document.getElementById("thread"), {childList: true, subtree: true, characterData: true});
}"""


# ---- answers ----


def test_an_answer_is_streamed(chat):
    chat.page.evaluate(WATCH_GROWTH)
    answer = chat.ask("Tell me a story about a lighthouse.")
    sizes = chat.page.evaluate("window.sizes")
    assert len(sizes) >= 3, sizes
    assert sizes == sorted(sizes)
    expect(chat.page.locator(".bubble")).to_have_text("You: Tell me a story about a lighthouse.")
    if chat.server.scripted:
        assert answer.startswith("The lighthouse stood on a rock")
        assert answer.endswith("By morning she had stopped being alone.")


def test_every_request_contains_the_conversation(chat):
    first = chat.ask("One")
    chat.ask("Two")
    one, two = chat.asked
    assert one["stream"] is True and one["model"] == chat.server.chat_model
    assert one["messages"] == [{"role": "user", "content": "One"}]
    assert [message["role"] for message in two["messages"]] == ["user", "assistant", "user"]
    assert two["messages"][1]["content"].split() == first.split()
    assert two["messages"][2]["content"] == "Two"
    assert one["conversation_id"] == two["conversation_id"]
    assert (one["turn"], two["turn"]) == (0, 1)


def test_the_stop_button_keeps_the_text_so_far(chat):
    chat.allow_long_answers()
    chat.say(LONG)
    expect(chat.answers.last).to_have_class(re.compile("writing"))
    chat.stop.click()
    expect(chat.page.locator(".answer-notes").last).to_have_text("Stopped.")
    stopped = chat.answers.last.inner_text()
    assert stopped
    time.sleep(0.5)
    assert chat.answers.last.inner_text() == stopped
    chat.reload()
    assert chat.answers.last.inner_text() == stopped


def test_escape_stops(chat):
    chat.allow_long_answers()
    chat.say(LONG)
    expect(chat.answers.last).to_have_class(re.compile("writing"))
    chat.page.keyboard.press("Escape")
    expect(chat.page.locator(".answer-notes").last).to_have_text("Stopped.")
    expect(chat.message).to_be_focused()


def test_regenerating_asks_the_same_again_in_the_same_turn(chat):
    chat.ask("One")
    chat.answer_with("Another ", "answer.")
    chat.button("Regenerate").click()
    expect(chat.answers).to_have_text(["Another answer."])
    first, second = chat.asked
    assert first == second


@pytest.mark.nightly
def test_earlier_answers_stay_after_regenerating_and_the_shown_one_is_sent(chat):
    chat.answer_with("First.")
    chat.ask("One")
    chat.answer_truly()
    chat.answer_with("Second.")
    chat.button("Regenerate").click()
    expect(chat.answers).to_have_text(["Second."])
    chat.reload()
    chat.button("Show another of 2 answers").click()
    expect(chat.answers).to_have_text(["First."])
    chat.ask("Two")
    assert chat.asked[-1]["messages"][1]["content"] == "First."


def test_an_earlier_message_can_be_edited_and_what_follows_is_removed(chat):
    for text in ("One", "Two", "Three"):
        chat.answer_with(f"Answer {text}.")
        chat.ask(text)
        chat.answer_truly()
    chat.button("Edit message").nth(1).click()
    expect(chat.page.get_by_text("What follows will be removed.")).to_be_visible()
    chat.page.get_by_label("Edit your message").fill("Zwei")
    chat.answer_with("Answer Zwei.")
    chat.button("Send again").click()
    expect(chat.page.locator(".bubble")).to_have_text(["You: One", "You: Zwei"])
    assert chat.asked[-1]["turn"] == 1 and [m["content"] for m in chat.asked[-1]["messages"]] == [
        "One",
        "Answer One.",
        "Zwei",
    ]


@pytest.mark.nightly
def test_numbers_and_the_limit_of_an_answer_are_shown_and_it_can_be_continued(chat):
    chat.allow_long_answers()
    chat.page.locator("#settings-button").click()
    chat.page.get_by_label("Longest answer", exact=True).fill("5")
    chat.page.keyboard.press("Escape")
    begun = chat.ask("One")
    expect(chat.page.locator(".answer-notes")).to_contain_text(
        "Ended at “Longest answer” in the settings, after 5 tokens."
    )
    numbers = re.compile(r"^5 tokens · [\d.,]+ per second · context \d+ of \d")
    expect(chat.page.locator(".numbers")).to_contain_text(numbers)
    chat.button("Continue").click()
    chat.finished()
    assert chat.asked[-1]["messages"][-1] == {"role": "assistant", "content": chat.asked[-1]["messages"][-1]["content"]}
    assert chat.asked[-1]["continue_final_message"] is True
    begun, longer = begun.strip(), chat.answers.last.inner_text().strip()  # the model's text may begin with a space
    assert longer.startswith(begun[:3]) and len(longer) > len(begun)


@pytest.mark.nightly
def test_a_regeneration_that_fails_leaves_the_older_answer(chat):
    before = chat.ask("One")
    chat.refuse_with(500, "Out of memory.")
    chat.button("Regenerate").click()
    expect(chat.page.locator(".error-card")).to_contain_text("Out of memory.")
    assert chat.answers.last.inner_text() == before


def test_the_last_message_can_be_edited_and_sent_again(chat):
    chat.ask("One")
    chat.ask("Tow")
    expect(chat.button("Edit message")).to_have_count(2)
    chat.button("Edit message").last.click()
    box = chat.page.get_by_label("Edit your message")
    expect(box).to_have_value("Tow")
    box.fill("Two")
    chat.button("Send again").click()
    chat.finished()
    assert chat.asked[2]["turn"] == 1
    assert chat.asked[2]["messages"][-1]["content"] == "Two"
    assert "Tow" not in str(chat.asked[2])
    expect(chat.page.locator(".bubble")).to_have_text(["You: One", "You: Two"])


@pytest.mark.nightly
def test_an_answer_can_be_copied(chat):
    chat.context.grant_permissions(["clipboard-read", "clipboard-write"], origin=chat.server.base_url)
    chat.answer_with("To **copy**.")
    chat.ask("One")
    chat.button("Copy answer").click()
    expect(chat.button("Copied")).to_be_visible()
    assert chat.page.evaluate("() => navigator.clipboard.readText()") == "To **copy**."


def test_ratings_reach_the_server_and_can_be_removed(chat):
    chat.ask("One")
    good, bad = chat.button("Good answer"), chat.button("Bad answer")
    for button, rating in ((good, 1), (bad, -1), (bad, 0), (good, 1)):
        with chat.page.expect_response("**/v1/ratings") as response:
            button.click()
        assert response.value.json() == {"ok": True}
        assert chat.rated[-1]["rating"] == rating
    assert len({rated["id"] for rated in chat.rated}) == 1
    chat.reload()
    expect(good).to_have_attribute("aria-pressed", "true")
    expect(bad).to_have_attribute("aria-pressed", "false")


@pytest.mark.nightly
def test_an_answer_continues_while_another_conversation_is_open(chat):
    chat.allow_long_answers()
    chat.say(LONG)
    expect(chat.answers.last).to_have_class(re.compile("writing"))
    chat.button("New chat").click()
    expect(chat.answers).to_have_count(0)
    expect(chat.page.get_by_role("img", name="Being answered")).to_be_visible()
    chat.page.locator(".entry-title").click()
    expect(chat.stop).to_be_visible()
    before = len(chat.answers.last.inner_text())
    expect(chat.answers.last).to_have_text(re.compile(rf"^[\s\S]{{{before + 5},}}$"))
    chat.stop.click()
    expect(chat.page.locator(".answer-notes")).to_have_text("Stopped.")


# ---- models and settings ----


def test_another_model_can_be_chosen_and_is_loaded_by_the_next_message(chat):
    chat.page.locator("#model-button").click()
    options = chat.page.get_by_role("option")
    mine = options.filter(has=chat.page.get_by_text(chat.server.chat_model, exact=True))
    other = options.filter(has=chat.page.get_by_text(chat.server.base_model, exact=True))
    expect(mine).to_have_attribute("aria-selected", "true")
    expect(mine).to_contain_text("chat")
    expect(other).to_contain_text("base")
    expect(other).to_contain_text("parameters")
    expect(other).to_contain_text(re.compile(r"[\d,]+ tokens of context"))
    other.click()
    expect(chat.page.locator("#model-name")).to_have_text(chat.server.base_model)
    expect(chat.page.locator(".welcome")).to_contain_text("is a base model")
    expect(chat.page.locator(".welcome")).to_contain_text("It continues what you write.")
    chat.say("Out on the water")
    expect(chat.page.locator("#base-note")).to_contain_text("continues your text instead of answering it")
    if chat.server.scripted:
        expect(chat.page.locator("#model-name")).to_have_text(f"{chat.server.base_model}: loading…")
        expect(chat.page.locator(".waiting")).to_contain_text(f"Loading {chat.server.base_model}")
    chat.finished()
    expect(chat.page.locator("#model-name")).to_have_text(chat.server.base_model)
    assert chat.asked[-1]["model"] == chat.server.base_model
    expect(chat.answers.last).to_have_class(re.compile("plain"))
    chat.page.locator("#model-button").click()
    expect(other).to_contain_text("loaded")
    chat.page.keyboard.press("Escape")
    chat.reload()
    expect(chat.page.locator("#model-name")).to_have_text(chat.server.base_model)


@pytest.mark.nightly
def test_the_list_of_models_is_refreshed_whenever_it_is_opened(chat):
    def with_another(route):
        response = route.fetch()
        listing = response.json()
        listing["data"].append({"id": "fresh", "loaded": False, "chat": True, "parameters": None})
        route.fulfill(response=response, json=listing)

    chat.page.route("**/v1/models", with_another)
    chat.page.locator("#model-button").click()
    expect(chat.page.get_by_role("option").filter(has_text="fresh")).to_contain_text("size unknown")


def test_settings_are_explained_sent_and_kept(chat):
    settings = chat.page.request.get(f"{chat.server.base_url}/v1/settings").json()
    chat.ask("Before")
    assert not {"temperature", "top_p", "top_k", "max_tokens", "seed"} & set(chat.asked[0]), "the server's defaults"
    chat.button("Settings").click()
    temperature = chat.page.get_by_label("Temperature", exact=True)
    expect(temperature).to_have_attribute("placeholder", f"{settings['defaults']['temperature']:g}")
    expect(chat.page.get_by_label("Longest answer")).to_have_attribute("max", str(settings["max_tokens"]))
    temperature.fill("0.3")
    chat.page.get_by_label("Top p", exact=True).fill("0.9")
    chat.page.get_by_label("Top k").fill("20")
    chat.page.get_by_label("Longest answer").fill("12")
    chat.page.get_by_label("Repetition penalty").fill("1.1")
    chat.page.get_by_label("Seed").fill("7")
    chat.page.get_by_label("System prompt").fill("Be brief.")
    chat.button("Close settings").click()
    expect(chat.button("Settings, 7 changed")).to_be_visible()
    chat.reload()
    chat.ask("After")
    sent = chat.asked[-1]
    wanted = {"temperature": 0.3, "top_p": 0.9, "top_k": 20, "max_tokens": 12, "repetition_penalty": 1.1, "seed": 7}
    assert {name: sent[name] for name in wanted} == wanted
    assert sent["messages"][0] == {"role": "system", "content": "Be brief."}
    chat.button("Settings, 7 changed").click()
    chat.button("Reset all").click()
    chat.button("Close settings").click()
    chat.ask("Again")
    assert not set(wanted) & set(chat.asked[-1])
    assert chat.asked[-1]["messages"][0]["role"] == "user"


@pytest.mark.nightly
def test_a_value_out_of_range_is_explained_and_not_sent(chat):
    chat.button("Settings").click()
    chat.page.get_by_label("Temperature", exact=True).fill("0.5")
    chat.page.get_by_label("Temperature", exact=True).fill("9")
    expect(chat.page.get_by_text("A number between 0 and 2.")).to_be_visible()
    chat.page.get_by_label("Top k").fill("2.5")
    expect(chat.page.get_by_text("A whole number 0 or more.")).to_be_visible()
    chat.button("Close settings").click()
    chat.ask("One")
    assert chat.asked[-1]["temperature"] == 0.5
    assert "top_k" not in chat.asked[-1]


@pytest.mark.nightly
def test_the_slider_and_the_number_agree(chat):
    chat.button("Settings").click()
    slider = chat.page.get_by_label("Temperature, slider")
    slider.fill("1.2")
    expect(chat.page.get_by_label("Temperature", exact=True)).to_have_value("1.2")
    chat.page.get_by_label("Temperature", exact=True).fill("0.25")
    expect(slider).to_have_value("0.25")


# ---- conversations ----


def test_a_reload_keeps_conversations_drafts_and_which_is_open(chat):
    answer = chat.ask("The first conversation")
    chat.button("New chat").click()
    chat.ask("The second one")
    chat.page.locator(".entry-title", has_text="The first").click()
    chat.message.fill("Half a thou")
    chat.reload()
    expect(chat.page.locator(".bubble")).to_have_text("You: The first conversation")
    assert chat.answers.inner_text() == answer
    expect(chat.message).to_have_value("Half a thou")
    expect(chat.page.locator(".entry-text")).to_have_text(["The second one", "The first conversation"])
    expect(chat.page.locator(".entry.current")).to_have_text("The first conversation")


def test_conversations_are_renamed_found_deleted_and_brought_back(chat):
    chat.answer_with("A heron stood there.")
    chat.ask("Birds of the marsh")
    chat.button("New chat").click()
    chat.answer_with("Rope, mostly.")
    chat.ask("What to pack")
    names = chat.page.locator(".entry-text")

    chat.page.locator(".entry", has_text="Birds").hover()
    chat.button("Rename Birds of the marsh").click()
    chat.page.get_by_label("New name").fill("Marsh")
    chat.page.keyboard.press("Enter")
    expect(names).to_have_text(["What to pack", "Marsh"])

    for search, found in (("heron", ["Marsh"]), ("ROPE pack", ["What to pack"]), ("", ["What to pack", "Marsh"])):
        chat.page.get_by_label("Search conversations").fill(search)
        expect(names).to_have_text(found)
    chat.page.get_by_label("Search conversations").fill("zebra")
    expect(chat.page.get_by_text("Nothing found.")).to_be_visible()
    chat.page.get_by_label("Search conversations").fill("")

    chat.page.locator(".entry", has_text="What to pack").hover()
    chat.button("Delete What to pack").click()
    expect(names).to_have_text(["Marsh"])
    expect(chat.answers).to_have_count(0)
    chat.button("Undo").click()
    expect(names).to_have_text(["What to pack", "Marsh"])
    expect(chat.answers).to_have_text("Rope, mostly.")


@pytest.mark.nightly
def test_two_tabs_share_the_list(chat):
    other: Page = chat.context.new_page()
    other.goto(chat.server.base_url)
    chat.answer_with("Yes.")
    chat.ask("Said in the first tab")
    expect(other.locator(".entry-text")).to_have_text("Said in the first tab")


@pytest.mark.nightly
def test_fine_tuning_is_announced_with_the_command_to_type(chat):
    stats = {"chat_count": 9, "ready_for_finetuning": False}
    chat.page.route("**/stats", lambda route: route.fulfill(json=stats))
    chat.reload()
    expect(chat.page.locator("#finetuning")).to_contain_text("9 conversations logged; fine-tuning needs 10.")
    stats |= {"chat_count": 10, "ready_for_finetuning": True}
    chat.reload()
    chat.page.get_by_text("ready to fine-tune").click()
    expect(chat.page.locator(".command code")).to_have_text(
        "uv run python light_compute_project/scripts/train.py +experiment=finetune_chat "
        f"init_from={chat.server.chat_model}"
    )


def test_conversations_are_exported_deleted_and_imported(chat, tmp_path):
    chat.answer_with("**Yes.**")
    for text in ("One", "Two"):
        chat.button("New chat").click()
        chat.ask(text)
    with chat.page.expect_download() as download:
        chat.button("Export").click()
    file = tmp_path / "conversations.json"
    download.value.save_as(file)
    chat.button("Delete all").click()
    expect(chat.page.locator(".entry-title")).to_have_count(0)
    chat.button("Undo").click()
    expect(chat.page.locator(".entry-title")).to_have_count(2)
    chat.button("Delete all").click()
    chat.page.locator("#import-file").set_input_files(file)
    expect(chat.page.locator("#toasts")).to_contain_text("2 imported.")
    chat.page.locator("#import-file").set_input_files(file)
    expect(chat.page.locator("#toasts")).to_contain_text("0 imported, 2 are already here.")
    chat.page.locator(".entry-title").first.click()
    expect(chat.answers.last.locator("strong")).to_have_text("Yes.")
    kept = {"id": "f" * 32, "exchanges": [None, {"user": 3}, {"user": "Kept", "answer": {"text": 5}}]}
    odd = {"format": "lightcompute.conversations", "conversations": [3, None, {"id": "x"}, kept]}
    file.write_text(json.dumps(odd))
    chat.page.locator("#import-file").set_input_files(file)
    expect(chat.page.locator("#toasts")).to_contain_text("1 imported.")
    chat.page.get_by_text("Kept").first.click()
    expect(chat.page.locator(".bubble")).to_have_text("You: Kept")
    file.write_text("[1, 2]")
    chat.page.locator("#import-file").set_input_files(file)
    expect(chat.page.locator("#toasts")).to_contain_text("This is not a file of exported conversations.")


def test_code_is_coloured_and_formulas_are_shown_by_the_real_server(chat):
    chat.answer_with("```python\ndef f(x):\n    return 1  # one\n```\n\n$$\\frac{a}{b}$$")
    chat.ask("One")
    body = chat.answers.last
    expect(body.locator(".code-comment")).to_have_text("# one")
    expect(body.locator("pre")).to_have_text("def f(x):\n    return 1  # one")
    expect(body.locator("math mfrac mi")).to_have_text(["a", "b"])


@pytest.mark.nightly
def test_a_conversation_has_settings_of_its_own(chat):
    def set_top_k(value: str, *, own: bool | None = None) -> None:
        chat.page.locator("#settings-button").click()
        if own is not None:
            chat.page.get_by_label("Only for this conversation").set_checked(own)
        chat.page.get_by_label("Top k", exact=True).fill(value)
        chat.page.keyboard.press("Escape")

    set_top_k("7")
    chat.ask("One")
    set_top_k("3", own=True)
    chat.ask("Two")
    chat.button("New chat").click()
    chat.ask("Another")
    assert [asked["top_k"] for asked in chat.asked] == [7, 3, 7]
    chat.reload()
    chat.page.locator(".entry-title").last.click()
    chat.ask("Three")
    assert chat.asked[-1]["top_k"] == 3 and chat.asked[-1]["conversation_id"] == chat.asked[0]["conversation_id"]
    set_top_k("9", own=False)
    chat.ask("Four")
    assert chat.asked[-1]["top_k"] == 9


def test_an_answer_can_be_edited_and_later_requests_contain_it(chat):
    chat.answer_with("It is **blue**.", exchange_id="x1")
    chat.ask("Which colour?")
    chat.button("Edit answer").click()
    box = chat.page.get_by_label("Edit the answer")
    expect(box).to_have_value("It is **blue**.")
    box.press("Escape")
    expect(chat.answers.last.locator("strong")).to_have_text("blue")
    expect(chat.button("Edit answer")).to_be_focused()
    chat.button("Edit answer").click()
    box.fill("It is *green*.")
    chat.button("Keep").click()
    expect(chat.answers.last.locator("em")).to_have_text("green")
    expect(chat.page.locator(".made-by").first).to_contain_text("edited")
    expect(chat.button("Good answer")).to_have_count(0)  # the log has the model's own words
    chat.reload()
    chat.ask("Are you sure?")
    assert chat.asked[-1]["messages"][1] == {"role": "assistant", "content": "It is *green*."}
