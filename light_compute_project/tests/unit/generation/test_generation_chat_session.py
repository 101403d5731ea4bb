"""What a chat session keeps, what is in its prompts, and what remains after stopping early."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest

from litgpt_core.core.errors import ConfigError
from litgpt_core.generation import Engine, SamplingSettings
from litgpt_core.generation.chat_session import ChatSession
from litgpt_core.generation.request import Delta, GenerationRequest
from litgpt_core.model.gpt import GPT
from litgpt_core.prompts import Message, encode_prompt, style_named
from litgpt_core.tokenizers.base import Tokenizer

GREEDY = SamplingSettings(temperature=0)
HUMAN = style_named("human_assistant")


class RecordingEngine(Engine):
    """Records its requests."""

    requests: list[GenerationRequest]

    def stream(self, request: GenerationRequest, **words: object) -> Iterator[Delta]:
        self.requests = [*getattr(self, "requests", []), request]
        return super().stream(request, **words)  # type: ignore[arg-type]


@pytest.fixture
def engine(build: Callable[..., GPT], tokenizer: Tokenizer) -> RecordingEngine:
    return RecordingEngine(build(block_size=96), tokenizer, compile="false")


def seen(engine: RecordingEngine) -> str:
    """The text of the latest prompt."""
    return engine.tokenizer.decode(engine.requests[-1].prompt_ids)


def test_the_prompt_is_the_whole_conversation_in_the_style(engine: RecordingEngine) -> None:
    talk = ChatSession(engine, style=HUMAN, system="S")
    first = "".join(talk.reply("a", max_new_tokens=4, sampling=GREEDY))
    assert seen(engine) == "S\nHuman: a\nAssistant: "
    "".join(talk.reply("b", max_new_tokens=4, sampling=GREEDY))
    assert [message.role for message in talk.messages] == ["user", "assistant"] * 2
    assert talk.messages[1].content == first
    sent = [Message(role="system", content="S"), *talk.messages[:3]]
    assert list(engine.requests[-1].prompt_ids) == encode_prompt(HUMAN, engine.tokenizer, sent)
    assert engine.requests[-1].stop == ("\nHuman:",) and engine.tokenizer.eos_id in (engine.requests[-1].stop_ids or ())


def test_equal_seeds_give_equal_answers(engine: RecordingEngine) -> None:
    answers = ["".join(ChatSession(engine, style=HUMAN).reply("a", max_new_tokens=12, seed=5)) for _ in range(2)]
    assert answers[0] == answers[1]


def test_the_oldest_turns_are_left_out_but_never_the_system_prompt_or_the_newest_message(
    engine: RecordingEngine,
) -> None:
    talk = ChatSession(engine, style=HUMAN, system="SYSTEM")
    for number in range(8):
        "".join(talk.reply(f"question {number}", max_new_tokens=8, sampling=GREEDY))
        request = engine.requests[-1]
        assert len(request.prompt_ids) + request.max_new_tokens <= talk.block_size
        assert seen(engine).startswith("SYSTEM\nHuman: ") and seen(engine).endswith(f"question {number}\nAssistant: ")
    assert "question 0" not in seen(engine)
    assert talk.latest and 5 <= talk.latest.turns_left_out <= 7
    assert len(talk.messages) == 16, "all messages are kept, even those not in the prompt"
    assert talk.latest.context_used <= talk.block_size


def test_as_many_turns_as_fit_are_in_the_prompt(engine: RecordingEngine) -> None:
    talk = ChatSession(engine, style=HUMAN)
    talk.messages = [Message(role=("user", "assistant")[place % 2], content="x" * 5) for place in range(20)]  # type: ignore[arg-type]
    "".join(talk.reply("now", max_new_tokens=10, sampling=GREEDY))
    room = talk.block_size - 10
    used, turn = len(engine.requests[-1].prompt_ids), len("Human: xxxxx\nAssistant: xxxxx") + 2
    assert room - turn < used <= room


def test_a_message_longer_than_the_window_is_an_error_and_not_kept(engine: RecordingEngine) -> None:
    talk = ChatSession(engine, style=HUMAN, system="be brief")
    with pytest.raises(ConfigError, match="fewer than the 96 tokens") as caught:
        talk.reply("x" * 90, max_new_tokens=4)
    assert "system prompt" in caught.value.fix and talk.messages == []


def test_an_answer_that_fills_the_window_ends_there(engine: RecordingEngine) -> None:
    talk = ChatSession(engine, style=HUMAN)
    "".join(talk.reply("a", max_new_tokens=500, seed=3))
    assert talk.latest and talk.latest.finish_reason == "length"
    assert talk.latest.context_used <= talk.block_size


def test_stopping_keeps_the_text_so_far(engine: RecordingEngine) -> None:
    talk = ChatSession(engine, style=HUMAN)
    stream = talk.reply("a", max_new_tokens=40, seed=1)
    delta = next(stream)
    stream.close()
    assert [message.content for message in talk.messages] == ["a", delta]
    assert talk.latest and talk.latest.finish_reason is None
    assert "".join(talk.reply("b", max_new_tokens=3, sampling=GREEDY)), "the engine is free again"


def test_stopping_before_any_text_removes_the_message(engine: RecordingEngine) -> None:
    talk = ChatSession(engine, style=HUMAN)
    talk.reply("a", max_new_tokens=40).close()
    assert talk.messages == []


def test_a_base_model_continues_the_text(engine: RecordingEngine) -> None:
    talk = ChatSession(engine)
    answer = "".join(talk.reply("Once upon", max_new_tokens=6, sampling=GREEDY))
    assert talk.is_base and seen(engine) == "Once upon"
    "".join(talk.reply("a time", max_new_tokens=6, sampling=GREEDY))
    assert seen(engine) == f"Once upon{answer}\na time"
    assert engine.requests[-1].overflow == "slide"


def test_a_base_model_sees_the_end_of_a_long_text_and_the_system_prompt(engine: RecordingEngine) -> None:
    talk = ChatSession(engine, system="S")
    "".join(talk.reply("x" * 300 + "end", max_new_tokens=16, sampling=GREEDY))
    assert len(engine.requests[-1].prompt_ids) == talk.block_size - 16
    assert seen(engine).startswith("S\nxxx") and seen(engine).endswith("xend")


def test_reset_forgets_the_messages_and_keeps_the_system_prompt(engine: RecordingEngine) -> None:
    talk = ChatSession(engine, style=HUMAN, system="S")
    "".join(talk.reply("a", max_new_tokens=2, sampling=GREEDY))
    talk.reset()
    assert (talk.messages, talk.latest, talk.system) == ([], None, "S")


def test_a_conversation_is_one_json_line(engine: RecordingEngine) -> None:
    talk = ChatSession(engine, style=HUMAN, system="S")
    talk.messages = [Message(role="user", content="ü\n"), Message(role="assistant", content="b")]
    line = talk.as_json_line()
    assert line.endswith("\n") and line.count("\n") == 1 and "ü" in line
    assert [tuple(entry.values()) for entry in json.loads(line)["messages"]] == [
        ("system", "S"),
        ("user", "ü\n"),
        ("assistant", "b"),
    ]
