"""One rule for the order of messages, in every style: nothing is left out."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from litgpt_core.core.errors import ConfigError
from litgpt_core.prompts import Message, encode_conversation, encode_prompt, style_named, style_names
from litgpt_core.prompts.tool_messages import text_message
from litgpt_core.prompts.turns import arrange, begins_with_greeting, with_system_in_first_turn
from litgpt_core.tokenizers import Tokenizer


def told(*pairs: tuple[str, str]) -> list[Message]:
    return [Message(role=role, content=content) for role, content in pairs]  # type: ignore[arg-type]


def plain(messages: list[Message]) -> list[tuple[str, str]]:
    return [(message.role, message.content) for message in messages]


GREETED = told(
    ("system", "s1"),
    ("assistant", "Welcome"),
    ("user", "q1"),
    ("assistant", "a1"),
    ("system", "s2"),
    ("user", "q2"),
)


def test_system_messages_are_joined_at_the_head_and_a_greeting_answers_an_empty_message() -> None:
    arranged = arrange(GREETED)
    assert plain(arranged) == [
        ("system", "s1\n\ns2"),
        ("user", ""),
        ("assistant", "Welcome"),
        ("user", "q1"),
        ("assistant", "a1"),
        ("user", "q2"),
    ]
    assert arrange(arranged) == arranged
    assert begins_with_greeting(GREETED) and begins_with_greeting(arranged) and not begins_with_greeting(GREETED[2:])
    assert plain(arrange(told(("user", "a"), ("user", "b"), ("system", "")))) == [("system", ""), ("user", "a\n\nb")]
    assert plain(with_system_in_first_turn(GREETED))[:2] == [("user", "s1\n\ns2"), ("assistant", "Welcome")]
    with pytest.raises(ConfigError, match="no message of the user"):
        arrange(told(("system", "only")))


@pytest.mark.parametrize("name", style_names())
def test_every_text_reaches_the_prompt_and_training_alike(name: str, tokenizer_of: Callable[[str], Tokenizer]) -> None:
    style, tokenizer = style_named(name), tokenizer_of("byte")
    ids = encode_prompt(style, tokenizer, GREETED)
    text = tokenizer.decode(ids)
    assert [part for part in ("s1", "s2", "Welcome", "q1", "a1", "q2") if part not in text] == []
    learnt, _ = encode_conversation(style, tokenizer, [*GREETED, Message(role="assistant", content="a2")])
    assert learnt[: len(ids)] == ids


def test_tool_calls_results_and_refusals_become_text() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "clock", "arguments": '{"zone": "UTC"}'}}
    assert text_message("assistant", "", tool_calls=[call]).content == (
        '<tool_call>\n{"name": "clock", "arguments": {"zone": "UTC"}}\n</tool_call>'
    )
    odd = {"function": {"name": "f", "arguments": "not json"}}
    assert text_message("assistant", "Wait.", tool_calls=[odd]).content.startswith("Wait.\n<tool_call>\n")
    assert text_message("tool", "12:30") == Message(role="user", content="<tool_response>\n12:30\n</tool_response>")
    assert text_message("assistant", "", refusal="No.").content == "No."
    assert text_message("developer", "be kind").role == "system"
