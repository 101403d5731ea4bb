"""Programs that send the whole history each time get one conversation in the log, learnt answer by answer."""

import json

import pytest

from litgpt_core.data.conversations import read_conversations
from litgpt_core.data.settings import ChatDataSettings
from litgpt_core.serving.chat_log import ChatLog
from litgpt_core.serving.chat_memory import Exchange, KnownConversations, remember


@pytest.fixture
def say(tmp_path):
    log, known = ChatLog(tmp_path / "chats.jsonl"), KnownConversations()

    def _say(messages, answer, **words):
        usual = {"model": "m", "settings": {}, "conversation_id": None, "turn": None}
        exchange = Exchange(messages=messages, answer=answer, **(usual | words))
        return remember(exchange, log=log, known=known)

    _say.log = log
    return _say


def rows(say):
    return [json.loads(line) for line in say.log.path.read_text().splitlines()]


def test_a_history_that_we_answered_is_continued(say):
    say([("user", "One")], "1")
    say([("user", "One"), ("assistant", "1"), ("user", "Two")], "2")
    say([("user", "One"), ("assistant", "1"), ("user", "Two"), ("assistant", "2"), ("user", "Three")], "3")
    assert [(row["turn"], row["user"], row["rating"]) for row in rows(say)] == [
        (0, "One", None),
        (1, "Two", None),
        (2, "Three", None),
    ]
    assert len({row["conversation_id"] for row in rows(say)}) == 1 and say.log.conversations == 1


def test_two_conversations_that_begin_alike_stay_two(say):
    say([("user", "Hi")], "Hello.")
    say([("user", "Hi")], "Hello!")
    assert say.log.conversations == 2


def test_an_unknown_history_is_read_and_not_learnt(say):
    say([("system", "Be kind."), ("user", "A"), ("assistant", "a"), ("user", "And the second?")], "b")
    found = rows(say)
    assert [(row["turn"], row["user"], row["rating"]) for row in found] == [(0, "A", -1), (1, "And the second?", None)]
    assert {row["system"] for row in found} == {"Be kind."} and say.log.conversations == 1
    [conversation], _ = read_conversations(ChatDataSettings(name="chat", path=str(say.log.path)))
    assert [message.content for message in conversation.messages] == ["Be kind.", "A", "a", "And the second?", "b"]


def test_a_history_in_no_order_is_left_out(say):
    say([("assistant", "Hello"), ("user", "A")], "b")
    assert [(row["turn"], row["user"]) for row in rows(say)] == [(0, "A")]


def test_the_clients_own_names_go_first(say):
    say([("user", "A"), ("assistant", "a"), ("user", "B")], "b", conversation_id="mine", turn=4)
    assert [(row["conversation_id"], row["turn"]) for row in rows(say)] == [("mine", 4)]
