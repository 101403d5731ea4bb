"""How much of a long conversation is in the prompt, and how much work finding it takes."""

from __future__ import annotations

import itertools

import pytest

from litgpt_core import tokenizers
from litgpt_core.core.errors import TokenizerError
from litgpt_core.generation.prompt_fitting import _most_that_fit, fit_prompt
from litgpt_core.prompts import Message, style_named

STYLE = style_named("human_assistant")


def talk_of(n: int, *, size: int = 4) -> list[Message]:
    return [Message(role=("user", "assistant")[i % 2], content="x" * size) for i in range(2 * n - 1)]  # type: ignore[arg-type]


def test_the_largest_number_that_fits_is_found() -> None:
    for n, most in itertools.product(range(1, 20), range(20)):
        assert _most_that_fit(n, fits=lambda count, most=most: count <= most) == max(1, min(n, most))


def test_a_long_conversation_is_not_formatted_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = tokenizers.train(tokenizers.ByteSettings(), [])
    formatted: list[int] = []
    segments = type(STYLE).segments

    def counting(style: object, messages: list[Message]) -> object:
        formatted.append(len(messages))
        return segments(style, messages)  # type: ignore[arg-type]

    monkeypatch.setattr(type(STYLE), "segments", counting)
    words = {"style": STYLE, "tokenizer": tokenizer, "block_size": 256, "max_new_tokens": 16}
    fitted = fit_prompt(talk_of(5000), **words)  # type: ignore[arg-type]
    assert 240 - 30 < len(fitted.ids) <= 240 and fitted.turns_left_out > 4980
    assert sum(formatted) < 300


def test_an_error_counts_positions_in_the_message_not_in_the_prompt() -> None:
    tokenizer = tokenizers.train(tokenizers.CharSettings(), ["Human: Assistant:\nabc"])
    words = {"style": STYLE, "tokenizer": tokenizer, "block_size": 256, "max_new_tokens": 16}
    with pytest.raises(TokenizerError, match=r"^The character 'é' \(U\+00E9\) at position 2 "):
        fit_prompt([Message(role="user", content="abé")], **words)  # type: ignore[arg-type]
    more = [*talk_of(1, size=0), Message(role="assistant", content="a"), Message(role="user", content="é")]
    with pytest.raises(TokenizerError, match=r"^Message 3: .* at position 0 "):
        fit_prompt(more, **words)  # type: ignore[arg-type]


def test_a_greeting_and_later_system_messages_are_in_the_prompt_of_chat_and_base_models() -> None:
    tokenizer = tokenizers.train(tokenizers.ByteSettings(), [])
    talk = [Message(role="assistant", content="Welcome"), Message(role="system", content="Be kind")]
    talk.append(Message(role="user", content="Hi"))
    for style in (STYLE, style_named("gemma"), None):
        fitted = fit_prompt(talk, style=style, tokenizer=tokenizer, block_size=256, max_new_tokens=16)
        text = tokenizer.decode(fitted.ids)
        assert [part for part in ("Welcome", "Be kind", "Hi") if part not in text] == []
