"""Hugging Face chat templates: rendered as by transformers, split into context and training targets."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest

from litgpt_core.core.errors import CheckpointError, ConfigError
from litgpt_core.prompts import Message, encode_conversation, encode_prompt, template_process
from litgpt_core.prompts import template as template_module
from litgpt_core.prompts.encode import _merged
from litgpt_core.prompts.template import TemplateStyle
from litgpt_core.prompts.template_marks import unused_marks
from litgpt_core.prompts.template_process import ChatTemplateError, ChatTemplateRefusal
from litgpt_core.tokenizers import Tokenizer

CHATML = """{%- for message in messages %}
{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\\n' }}
{%- endif %}"""
TURNS = """{{ bos_token }}{% for message in messages %}
{% if message['role'] == 'system' %}{{ raise_exception('no system text here') }}{% endif %}
{% if message['role'] == 'user' %}[Q] {{ message['content'] | trim }} [/Q]{% else %} {{ message['content'] | trim }}\
{{ eos_token }}{% endif %}{% endfor %}"""
REASONING = """{% for message in messages %}{% if message.role == 'user' %}U:{{ message.content }}
{% else %}A:{% generation %}{% if loop.last %}{{ message.content }}{% else %}\
{{ message.content.split('</think>') | last }}{% endif %}.{% endgeneration %}

{% endif %}{% endfor %}{% if add_generation_prompt %}A:{% endif %}"""
THINKING_PROMPT = """{% for message in messages %}{{ message.role }}:{{ message.content }};{% endfor %}\
{% if add_generation_prompt %}assistant:<think>{% endif %}"""
TOKENS = {"bos_token": "<s>", "eos_token": "<|endoftext|>"}
Get = Callable[[str], Tokenizer]


def style_of(template: str) -> TemplateStyle:
    return TemplateStyle(template=template, source="somewhere/tokenizer_config.json", tokens=TOKENS)


def told(*texts: str) -> list[Message]:
    return [Message(role=("user", "assistant")[place % 2], content=text) for place, text in enumerate(texts)]  # type: ignore[arg-type]


def parts(style: TemplateStyle, messages: list[Message]) -> list[tuple[str, bool]]:
    return [(segment.text, segment.learn) for segment in _merged(style.segments(messages)) if segment.text]


def test_the_answers_and_their_ends_are_found_in_the_rendered_text() -> None:
    assert parts(style_of(CHATML), told("a", "b", "c", "d")) == [
        ("<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n", False),
        ("b<|im_end|>", True),
        ("\n<|im_start|>user\nc<|im_end|>\n<|im_start|>assistant\n", False),
        ("d<|im_end|>", True),
        ("\n", False),
    ]
    assert style_of(CHATML).stop_strings() == ("<|im_end|>",)
    assert parts(style_of(TURNS), told("a", "b")) == [
        ("<s>", False),
        ("[Q] a [/Q]", False),
        (" b", True),
        ("<|endoftext|>", True),
    ]
    assert style_of(TURNS).stop_strings() == ()


@pytest.mark.parametrize("template", [CHATML, TURNS, REASONING, THINKING_PROMPT])
@pytest.mark.parametrize("kind", ["byte", "bpe", "sentencepiece", "foreign_json", "foreign_sentencepiece"])
def test_prompts_are_prefixes_of_the_conversation(template: str, kind: str, tokenizer_of: Get) -> None:
    style, tokenizer, talk = style_of(template), tokenizer_of(kind), told("one", "uno", "two", "due", "three", "tre")
    ids, flags = encode_conversation(style, tokenizer, talk)
    for place in (4,) if template is THINKING_PROMPT else (0, 2, 4):
        prompt = encode_prompt(style, tokenizer, talk[: place + 1])
        assert ids[: len(prompt)] == prompt and flags[len(prompt)]


def test_bos_and_eos_are_ids_that_a_message_cannot_forge(tokenizer_of: Get) -> None:
    tokenizer = tokenizer_of("bpe")  # reads no special token out of text
    ids, flags = encode_conversation(style_of(TURNS), tokenizer, told("a<|endoftext|>", "b", "c", "d"))
    assert [place for place, token_id in enumerate(ids) if token_id == tokenizer.eos_id] == [
        place for place in range(len(ids)) if flags[place] and not [*flags, False][place + 1]
    ]
    foreign = tokenizer_of("foreign_json")
    assert encode_prompt(style_of(TURNS), foreign, told("a"))[:2] == [foreign.bos_id, *foreign.encode("[")]
    assert style_of(TURNS).stop_tokens(foreign) == {foreign.eos_id}


def test_if_a_template_changes_earlier_turns_only_the_last_answer_is_a_target(caplog: pytest.LogCaptureFixture) -> None:
    talk = told("a", "<think>x</think>b", "c", "<think>y</think>d")
    style = TemplateStyle(template=REASONING, source="warned of once")
    with caplog.at_level(logging.WARNING):
        found = parts(style, talk)
        style.segments(talk)
    assert found == [("U:a\nA:b.\nU:c\nA:", False), ("<think>y</think>d.", True), ("\n", False)]
    assert caplog.text.count("only the last answer of each conversation") == 1


def test_a_prompt_that_starts_the_answer_is_not_a_target() -> None:
    assert parts(style_of(THINKING_PROMPT), told("a", "b")) == [("user:a;assistant:<think>", False), ("b;", True)]


def test_a_refusal_of_the_template_is_reported_with_its_message() -> None:
    with pytest.raises(ConfigError, match="no system text here"):
        style_of(TURNS).prompt([Message(role="system", content="s"), *told("a")])
    with pytest.raises(ChatTemplateRefusal):
        style_of(TURNS).segments([Message(role="system", content="s"), *told("a", "b")])
    assert not style_of(TURNS).takes_system() and style_of(CHATML).takes_system()


@pytest.mark.parametrize(
    "template",
    [
        "{% for message in messages %}",
        "{{ messages[0].nothing.more }}",
        "{{ 1 / 0 }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{% for i in range(10 ** 9) %}{% endfor %}",
        "{{ messages.append(1) }}",
        "{% for a in [1] %}" * 25 + "{% endfor %}" * 25,
        "{% break %}",
        "{{ 'x' * 3000000000 }}",
        "{{ '%2000000000d' % 1 }}",
        "{{ 'x' * 1000000 }}",
        "{{ lipsum(n=1000000) }}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    ],
)
def test_a_template_that_fails_or_is_unsafe_names_its_file(template: str) -> None:
    with pytest.raises(CheckpointError, match=r"somewhere/tokenizer_config\.json"):
        style_of(template).prompt(told("a"))


def test_a_template_that_leaves_out_answers_is_an_error() -> None:
    with pytest.raises(CheckpointError, match="leaves out"):
        style_of("{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}").segments(told("a", "b"))


def test_functions_called_by_templates_exist() -> None:
    template = "{{ strftime_now('%Y') }} {{ {'ä': '<'} | tojson }} {% for i in [1, 2] %}{{ i }}{% break %}{% endfor %}"
    assert style_of(template).prompt(told("a")) == f'{datetime.now().year} {{"ä": "<"}} 1'


@pytest.mark.parity
@pytest.mark.parametrize("template", [CHATML, TURNS, THINKING_PROMPT])
def test_transformers_renders_the_same_text(template: str) -> None:
    from transformers.utils.chat_template_utils import render_jinja_template

    talk = told(" a ", "b", "c")
    listed = [{"role": message.role, "content": message.content} for message in talk]
    [expected], _ = render_jinja_template(
        conversations=[listed], chat_template=template, add_generation_prompt=True, **TOKENS
    )
    assert style_of(template).prompt(talk) == expected


MOVING = """{% for m in messages %}{% if m.role == 'user' %}[{% if loop.last and messages[0].role == 'system' %}\
{{ messages[0].content }} {% endif %}{{ m.content }}]{% elif m.role == 'assistant' %}{{ m.content }}{{ eos_token }}\
{% endif %}{% endfor %}"""
"""The system prompt moves to the newest message, as in some of Mistral's."""
DROPPING = """{% for m in messages %}{% if m.role == 'user' %}<u>{{ m.content }}{% else %}<a>\
{{ (m.content.split('</think>') | last).strip() }}{{ eos_token }}{% endif %}{% endfor %}\
{% if add_generation_prompt %}<a><think>
{% endif %}"""
"""Drops the reasoning of every answer, the last one too, as DeepSeek R1's."""
TEMPLATES = [CHATML, TURNS, REASONING, THINKING_PROMPT, MOVING, DROPPING]
TALKS = [
    told("a", "b"),
    told("one", "uno", "two", "due", "three", "tre"),
    told("a", " b ", "b", "", "a", "a\n"),
    told("a", "<think>x</think>b", "c", "d", "e", "f"),
    [Message(role="system", content="S"), *told("a", "b", "c", "d")],
]


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("talk", TALKS)
def test_two_renderings_find_what_a_rendering_for_every_message_finds(template: str, talk: list[Message]) -> None:
    style = style_of(template)
    talk = [m for m in talk if m.role != "system" or style.takes_system()]
    marks = style._marks(talk, len(talk))
    try:
        slow = style._cut(style._by_turns(talk, marks=marks), marks)
    except ChatTemplateError:
        with pytest.raises(ChatTemplateError):
            style.segments(talk)
        return
    assert list(_merged(style.segments(talk))) == list(_merged(slow))


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_prompt_of_many_turns_takes_two_renderings(template: str, monkeypatch: pytest.MonkeyPatch) -> None:
    style, talk = style_of(template), told(*["<think>x</think>y", "<think>x</think>z"] * 60, "last")
    expected = style._rendered(talk, (marks := style._marks(talk, 61)), prompt=True)
    style._shape()
    rendered: list[int] = []
    whole = template_module.render_all
    monkeypatch.setattr(template_module, "render_all", lambda *a, **k: rendered.append(len(a[2])) or whole(*a, **k))
    text = "".join(segment.text for segment in style.prompt_segments(talk))
    assert rendered == [2] and text == expected.replace(marks.bos, "<s>").replace(marks.eos, "<|endoftext|>")


def test_earlier_turns_are_only_read(tokenizer_of: Get) -> None:
    """A second question after an answer with reasoning works; the answer itself cannot be learnt from this template."""
    style, talk = style_of(DROPPING), told("a", "<think>\nx\n</think>\n\nb", "c", "d", "e")
    assert "<u>a<a>b<|endoftext|><u>c<a>d<|endoftext|><u>e<a><think>\n" in style.prompt(talk)
    with pytest.raises(ChatTemplateError, match="leaves out the assistant's messages"):
        encode_conversation(style, tokenizer_of("byte"), talk[:2])


def test_no_character_of_a_message_becomes_a_token(tokenizer_of: Get) -> None:
    tokenizer = tokenizer_of("byte")
    pasted = "".join(map(chr, [*range(0xE000, 0xF900), *range(0xF0000, 0xF0100), 0x10FFFD]))
    ids, _ = encode_conversation(style_of(TURNS), tokenizer, told(pasted, pasted))
    text = tokenizer.decode(ids)
    assert text.count(pasted) == 2 and ids.count(tokenizer.eos_id) == 1
    with pytest.raises(ConfigError, match="private-use characters"):
        unused_marks(["".join(map(chr, [*range(0xE000, 0xF900), *range(0xF0000, 0x110000)]))], 2)


def test_a_template_that_never_ends_is_ended_and_refused_at_once_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template_process, "SECONDS", 0.5)
    endless = "{% for a in range(90000) %}{% for b in range(90000) %}{% endfor %}{% endfor %}"
    start = time.monotonic()
    with pytest.raises(ChatTemplateError, match=r"takes longer than 0\.5 s"):
        style_of(endless).prompt(told("a"))
    with pytest.raises(ChatTemplateError, match="a moment ago"):
        style_of(endless).prompt(told("a"))
    assert time.monotonic() - start < 10
    assert style_of(CHATML).prompt(told("a")).endswith("assistant\n"), "other templates go on"


def test_the_child_has_no_secret_and_imports_nothing_of_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIGHT_COMPUTE_API_KEY", "a secret")
    (tmp_path / "jinja2.py").write_text("raise SystemExit")
    monkeypatch.chdir(tmp_path)
    child = template_process._started()
    if (environ := Path(f"/proc/{child.process.pid}/environ")).exists():
        assert b"a secret" not in environ.read_bytes()
    child.end()
    assert not child.is_running


def test_a_conversation_of_a_thousand_turns_is_quick() -> None:
    """Rendering it anew for every turn took 0.6 s and grew with the square."""
    talk = told(*["word " * 5] * 2001)
    start = time.process_time()
    assert len(style_of(CHATML).prompt_segments(talk)) > 2000
    assert time.process_time() - start < 1
