"""Clients that send the whole history each time get one conversation in the log."""

import json

import pytest

from litgpt_core.data.conversations import read_conversations
from litgpt_core.data.settings import ChatDataSettings
from litgpt_core.serving.chat_log import ExchangeLog
from litgpt_core.serving.conversation_tracking import Exchange, RecentConversations, log_exchange


@pytest.fixture
def say(tmp_path):
    log, known = ExchangeLog(tmp_path / "chats.jsonl"), RecentConversations()

    def _say(messages, answer, **words):
        usual = {"model": "m", "settings": {}, "conversation_id": None, "turn": None}
        exchange = Exchange(messages=messages, answer=answer, **(usual | words))
        return log_exchange(exchange, log=log, known=known)

    _say.log = log
    return _say


def rows(say):
    return [json.loads(line) for line in say.log.path.read_text().splitlines()]


def test_a_known_history_is_continued(say):
    say([("user", "One")], "1")
    say([("user", "One"), ("assistant", "1"), ("user", "Two")], "2")
    say([("user", "One"), ("assistant", "1"), ("user", "Two"), ("assistant", "2"), ("user", "Three")], "3")
    assert [(row["turn"], row["user"], row["rating"]) for row in rows(say)] == [
        (0, "One", None),
        (1, "Two", None),
        (2, "Three", None),
    ]
    assert len({row["conversation_id"] for row in rows(say)}) == 1 and say.log.conversations == 1


def test_two_conversations_with_equal_beginnings_stay_separate(say):
    say([("user", "Hi")], "Hello.")
    say([("user", "Hi")], "Hello!")
    assert say.log.conversations == 2


def test_an_unknown_history_is_logged_as_context(say):
    say([("system", "Be kind."), ("user", "A"), ("assistant", "a"), ("user", "And the second?")], "b")
    found = rows(say)
    assert [(row["turn"], row["user"], row["rating"]) for row in found] == [(0, "A", -1), (1, "And the second?", None)]
    assert [row["system"] for row in found] == [None, "Be kind."] and say.log.conversations == 1
    [conversation], _ = read_conversations(ChatDataSettings(name="chat", path=str(say.log.path)))
    assert [message.content for message in conversation.messages] == ["Be kind.", "A", "a", "And the second?", "b"]


def test_a_greeting_is_left_out_of_the_log_and_the_rest_of_the_history_is_not(say):
    say([("assistant", "Hello"), ("user", "A"), ("user", "B"), ("assistant", "c"), ("user", "D")], "e")
    assert [(row["turn"], row["user"], row["assistant"]) for row in rows(say)] == [(0, "A\n\nB", "c"), (1, "D", "e")]


def test_an_unknown_history_does_not_fill_the_disk(say):
    history = [said for i in range(1000) for said in (("user", f"a {i}"), ("assistant", "b"))]
    for _ in range(3):
        say([("system", "s" * 90_000), *history, ("user", "last")], "c")
    sent = 3 * (90_000 + 1000 * 7)
    assert say.log.path.stat().st_size < 1.2 * sent
    assert [row["user"] for row in rows(say)][:21] == [*(f"a {i}" for i in range(980, 1000)), "last"]
    say([("user", "x" * 50_000), ("assistant", "y"), ("user", "z")], "end")
    assert [row["user"] for row in rows(say)][-1] == "z" and len(rows(say)) == 64


def test_the_clients_own_ids_take_precedence(say):
    say([("user", "A"), ("assistant", "a"), ("user", "B")], "b", conversation_id="mine", turn=4)
    assert [(row["conversation_id"], row["turn"]) for row in rows(say)] == [("mine", 4)]
