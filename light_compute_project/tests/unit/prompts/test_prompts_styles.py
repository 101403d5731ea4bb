"""What the styles write, turn by turn, and that single questions are LitGPT's byte for byte."""

from __future__ import annotations

from pathlib import Path

import pytest

from litgpt_core.core.errors import ConfigError
from litgpt_core.prompts import Message, style_name_of_model, style_named, style_names
from litgpt_core.prompts.catalogue import style_of_litgpt_class

PROMPTS = ("What is 2 + 2?", " {system} {user}\n\nüber ", "")
SYSTEMS = (None, "", "Be kind.", "Two\nlines {user}")


def talk_of(*texts: str, system: str | None = None) -> list[Message]:
    """User and assistant by turns."""
    talk = [] if system is None else [Message(role="system", content=system)]
    roles = ("user", "assistant")
    return talk + [Message(role=roles[place % 2], content=text) for place, text in enumerate(texts)]  # type: ignore[arg-type]


@pytest.mark.parity
def test_a_single_message_equals_litgpts_prompt_byte_for_byte_in_every_style() -> None:
    from litgpt import prompts

    others = {"falcon3": prompts.Falcon3, "r1": prompts.R1Base, "chatml": prompts.ChatML}
    for name, upstream in (prompts.prompt_styles | others).items():
        style = style_named(name)
        assert style_of_litgpt_class(upstream.__name__) is style
        for prompt in PROMPTS:
            for system in SYSTEMS:
                expected = upstream().apply(prompt, sys_prompt=system)
                assert style.prompt(talk_of(prompt, system=system)) == expected, (name, prompt, system)
    assert style_of_litgpt_class("Default") is style_named("plain")


@pytest.mark.parity
def test_every_style_of_litgpt_exists() -> None:
    from litgpt import prompts

    classes = {
        name
        for name, value in vars(prompts).items()
        if isinstance(value, type) and issubclass(value, prompts.PromptStyle) and value is not prompts.PromptStyle
    }
    assert {name for name in classes if style_of_litgpt_class(name) is None} == set()
    assert set(prompts.prompt_styles) <= set(style_names())


@pytest.mark.parity
def test_every_model_of_the_registry_gets_the_style_that_litgpt_gives_it() -> None:
    from litgpt import prompts
    from litgpt.config import configs

    assert len(configs) >= 200
    for name in (config["name"] for config in configs):
        expected = type(prompts.model_name_to_prompt_style(name)).__name__
        chosen = style_name_of_model(name)
        assert style_of_litgpt_class(expected) is style_named(chosen or "plain"), name


@pytest.mark.parity
def test_llama3_and_r1_equal_litgpt_for_lists_of_messages() -> None:
    from litgpt import prompts

    for name, upstream in (("llama3", prompts.Llama3()), ("r1", prompts.R1Base())):
        for system in (None, "Be kind."):
            talk = talk_of("a", "b", "c", "d", "e", system=system)
            listed = [{"role": message.role, "content": message.content} for message in talk]
            assert style_named(name).prompt(talk) == upstream.apply(listed)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("human_assistant", "S\nHuman: a\nAssistant: b\nHuman: c\nAssistant: "),
        ("plain", "S\nab\nc"),
        ("alpaca", "S### Instruction:\na\n\n### Response:\nb\n\n### Instruction:\nc\n\n### Response:\n"),
        ("falcon", "a\nAnswer:b\nc\nAnswer:"),
        ("llama2", "[INST] <<SYS>>\nS\n<</SYS>>\n\n a [/INST] b[INST] c [/INST] "),
        ("phi-3", "<|system|>\nS<|end|>\n<|user|>\na<|end|>\n<|assistant|>\nb<|end|>\n"
                  "<|user|>\nc<|end|>\n<|assistant|>\n"),
        ("gemma", "<start_of_turn>user\na<end_of_turn>\n<start_of_turn>model\nb<end_of_turn>\n"
                  "<start_of_turn>user\nc<end_of_turn>\n<start_of_turn>model\n"),
        ("chatml", "<|im_start|>system\nS<|im_end|>\n"
                   "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nb<|im_end|>\n"
                   "<|im_start|>user\nc<|im_end|>\n<|im_start|>assistant\n"),
    ],
)  # fmt: skip
def test_later_turns_follow_the_model_familys_format(name: str, expected: str) -> None:
    """Ends that are the tokenizer's eos have no spelling here; the tests of encoding look at those."""
    assert style_named(name).prompt(talk_of("a", "b", "c", system="S")) == expected


@pytest.mark.parametrize("name", style_names())
def test_exactly_the_answers_and_their_ends_are_targets(name: str) -> None:
    style = style_named(name)
    segments = style.segments(talk_of("a1", "b1", "a2", "b2"))
    learnt = [segment for segment in segments if segment.learn]
    assert [segment.text[:2] for segment in learnt if not segment.end_of_text] == ["b1", "b2"]
    ends = [segment.end_of_text or segment.text.endswith(">") for segment in learnt]
    assert ends[-1] and not any(text in segment.text for segment in learnt for text in ("a1", "a2"))
    assert segments[-1].learn, "nothing stands after the last answer"


@pytest.mark.parametrize("name", style_names())
def test_a_system_prompt_is_included_where_supported(name: str) -> None:
    style = style_named(name)
    assert ("Zaphod" in style.prompt(talk_of("a", system="Zaphod"))) == style.takes_system()


def test_conversations_without_a_message_to_answer_are_refused() -> None:
    style = style_named("chatml")
    user, answer, system = (Message(role=role, content="x") for role in ("user", "assistant", "system"))  # type: ignore[arg-type]
    for talk in ([system], []):
        with pytest.raises(ConfigError, match="has no message of the user"):
            style.segments(talk)
    with pytest.raises(ConfigError, match="ends with the assistant"):
        style.prompt([user, answer])
    with pytest.raises(ConfigError, match="role 'bot'"):
        Message(role="bot", content="x")  # type: ignore[arg-type]


def test_consecutive_messages_of_one_role_are_joined() -> None:
    user = [Message(role="user", content=text) for text in ("one", "two")]
    assert style_named("human_assistant").prompt(user) == "Human: one\n\ntwo\nAssistant: "


def test_similar_names_are_suggested_for_an_unknown_style() -> None:
    with pytest.raises(ConfigError, match=r"did you mean qwen2\.5"):
        style_named("qwen-2.5")
    with pytest.raises(ConfigError, match="human_assistant"):
        style_named("Human_Asistant")


def test_every_style_is_in_the_table_of_the_page() -> None:
    page = (Path(__file__).parents[3] / "docs" / "inference.md").read_text(encoding="utf-8")
    assert [name for name in style_names() if f"`{name}`" not in page] == []
