"""The ids of a prompt are a prefix of the ids of the conversation, for every style and kind of tokenizer."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from litgpt_core.prompts import Message, encode_conversation, encode_prompt, style_named, style_names
from litgpt_core.tokenizers import Tokenizer

KINDS = ("char", "byte", "bpe", "wordpiece", "unigram", "sentencepiece", "foreign_json", "foreign_sentencepiece")
Get = Callable[[str], Tokenizer]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", style_names())
def test_every_prompt_is_a_prefix_of_the_conversation(
    name: str, kind: str, talk: list[Message], tokenizer_of: Get
) -> None:
    style, tokenizer = style_named(name), tokenizer_of(kind)
    ids, flags = encode_conversation(style, tokenizer, talk)
    assert len(ids) == len(flags)
    for place, message in enumerate(talk):
        if message.role == "user":
            prompt = encode_prompt(style, tokenizer, talk[: place + 1])
            assert ids[: len(prompt)] == prompt
            assert not flags[len(prompt) - 1] and flags[len(prompt)], "learning begins where the prompt ends"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", style_names())
def test_the_flags_are_true_on_the_answers_and_the_ends_of_their_turns(
    name: str, kind: str, talk: list[Message], tokenizer_of: Get
) -> None:
    style, tokenizer = style_named(name), tokenizer_of(kind)
    ids, flags = encode_conversation(style, tokenizer, talk)
    runs: list[list[int]] = []
    for place, (token_id, learn) in enumerate(zip(ids, flags, strict=True)):
        if learn and not (place and flags[place - 1]):
            runs.append([])
        if learn:
            runs[-1].append(token_id)
    answers = [message.content for message in talk if message.role == "assistant"]
    assert len(runs) == len(answers)
    stops, ends = style.stop_tokens(tokenizer), style.stop_strings()
    for number, (run, answer) in enumerate(zip(runs, answers, strict=True)):
        text = tokenizer.decode(run)
        assert text.startswith(answer)
        assert text[len(answer) :] in ("", *ends)
        stopped = run[-1] in stops or text.endswith(ends or ("\0",))
        assert stopped or (name == "plain" and number < len(runs) - 1)


@pytest.mark.parametrize("kind", KINDS)
def test_the_ids_of_a_conversation_decode_to_its_text(kind: str, talk: list[Message], tokenizer_of: Get) -> None:
    """No token is lost or doubled at an edge; foreign tokenizers that add spaces add none inside."""
    style, tokenizer = style_named("human_assistant"), tokenizer_of(kind)
    assert tokenizer.decode(encode_prompt(style, tokenizer, talk[:6])) == style.prompt(talk[:6])


def test_special_markers_become_the_tokenizers_ids(tokenizer_of: Get) -> None:
    tokenizer = tokenizer_of("foreign_json")
    end = tokenizer.encode("<|im_end|>")
    assert len(end) == 1
    talk = [Message(role="user", content="a"), Message(role="assistant", content="b")]
    ids, flags = encode_conversation(style_named("chatml"), tokenizer, talk)
    assert ids[0] == tokenizer.bos_id and not flags[0], "this tokenizer wants its bos"
    assert ids[-1:] == end and flags[-1]
    assert style_named("chatml").stop_tokens(tokenizer) == {tokenizer.eos_id, *end}
    assert style_named("llama2").stop_tokens(tokenizer) == {tokenizer.eos_id}


def test_later_turns_of_llama2_begin_with_bos(tokenizer_of: Get) -> None:
    tokenizer = tokenizer_of("foreign_json")
    talk = [Message(role=role, content="x") for role in ("user", "assistant", "user")]  # type: ignore[arg-type]
    ids = encode_prompt(style_named("llama2"), tokenizer, talk)
    assert ids.count(tokenizer.bos_id or -1) == 2 and ids.count(tokenizer.eos_id) == 1
    assert ids[ids.index(tokenizer.eos_id) + 1] == tokenizer.bos_id


def test_eos_ends_a_turn_but_text_that_spells_it_does_not(tokenizer_of: Get) -> None:
    tokenizer = tokenizer_of("bpe")
    talk = [Message(role="user", content="say <|endoftext|>"), Message(role="assistant", content="<|endoftext|>")]
    ids, flags = encode_conversation(style_named("human_assistant"), tokenizer, talk)
    assert ids.count(tokenizer.eos_id) == 1 and ids[-1] == tokenizer.eos_id and flags[-1]


def test_an_empty_answer_is_an_answer(tokenizer_of: Get) -> None:
    tokenizer = tokenizer_of("byte")
    talk = [Message(role="user", content="a"), Message(role="assistant", content="")]
    talk.append(Message(role="user", content="b"))
    for name in style_names():
        ids, _ = encode_conversation(style_named(name), tokenizer, talk)
        prompt = encode_prompt(style_named(name), tokenizer, talk[:1])
        assert ids[: len(prompt)] == prompt
