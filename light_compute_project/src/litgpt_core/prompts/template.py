"""A Hugging Face chat template as a prompt style, rendered by Jinja in a sandbox.

A template only renders complete conversations. The assistant's text is found by comparing renderings of the
conversation up to successive messages. bos and eos are rendered as placeholders that cannot occur in messages and then
replaced by ids, so that a message containing `</s>` does not end the text, and the tokenizer need not parse special
tokens.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, NoReturn

from litgpt_core.core.errors import CheckpointError, ConfigError
from litgpt_core.prompts.message import Message, Segment
from litgpt_core.prompts.style import PromptStyle
from litgpt_core.prompts.turns import turns_of

if TYPE_CHECKING:
    from jinja2 import Template
    from jinja2.nodes import Node
    from jinja2.parser import Parser

logger = logging.getLogger(__name__)

_BOS, _EOS = "\ue0b0\ue0b1", "\ue0b0\ue0b2"
"""Placeholders from Unicode's private use area."""
_MARKS = re.compile(f"({_BOS}|{_EOS})")
_PROBE = "0a1b2c3d"


@dataclass(frozen=True, kw_only=True)
class TemplateStyle(PromptStyle):
    """See the module docstring. Final."""

    template: str
    """Jinja source: `chat_template` of `tokenizer_config.json`."""
    source: str
    """Its file, for error messages."""
    tokens: Mapping[str, str] = field(default_factory=dict)
    """Special tokens that it can refer to: bos_token, eos_token, pad_token, ..."""
    name: str = "chat_template"
    description: str = "the Hugging Face chat template in the model's directory"

    def takes_system(self) -> bool:
        """See `PromptStyle`; determined by rendering a system message."""
        messages = [Message(role="system", content=_PROBE), Message(role="user", content="?")]
        try:
            return _PROBE in self._render(messages, prompt=True)
        except ConfigError:
            return False

    def segments(self, messages: Sequence[Message]) -> list[Segment]:
        """See `PromptStyle`.

        If the template changes earlier turns when later ones follow (some remove the reasoning), everything before the
        last user message is context without training targets, as at inference.

        Raises:
            ConfigError: The roles are in an invalid order, or the template refuses them.
            CheckpointError: The template fails, or leaves out the assistant's messages.
        """
        system, turns = turns_of(messages)
        sent = [] if system is None else [Message(role="system", content=system)]
        so_far, parts = "", list[tuple[str, bool]]()
        for turn in turns:
            sent.append(Message(role="user", content=turn.user))
            prompt = self._render(sent, prompt=True)
            if prompt.startswith(so_far):
                parts.append((prompt[len(so_far) :], False))
            else:
                _warn_of_rewriting(self.source)
                parts = [(prompt, False)]
            so_far = prompt
            if turn.answer is not None:
                sent.append(Message(role="assistant", content=turn.answer))
                answer, rest = self._answer(sent, prompt)
                parts += [(answer, True), (rest, False)]
                so_far += answer + rest
        return [segment for text, learn in parts for segment in self._cut(text, learn=learn)]

    def stop_strings(self) -> tuple[str, ...]:
        """See `PromptStyle`: the template's text between an answer and the eos, if there is any."""
        messages = [Message(role="user", content="?"), Message(role="assistant", content=_PROBE)]
        try:
            answer, _ = self._answer(messages, self._render(messages[:1], prompt=True))
        except ConfigError:
            return ()
        end = _MARKS.split(answer.partition(_PROBE)[2])[0].strip()
        return (end,) if end else ()

    def _answer(self, messages: Sequence[Message], prompt: str) -> tuple[str, str]:
        """The assistant's text after `prompt`, including the end of its turn, and the white space after that."""
        full = self._render(messages, prompt=False)
        content = messages[-1].content.strip()
        if full.startswith(prompt):
            answer = full[len(prompt) :]
        else:  # the prompt starts the answer with something that the template does not render afterwards
            answer = full[full.rfind(content) :] if content in full else ""
        if content and not answer.strip():
            raise CheckpointError(
                f"The chat template in {self.source} leaves out the assistant's messages.",
                needed="a template that renders every message",
                fix="choose a style instead: --style NAME",
            )
        end = answer.rfind(content) + len(content) if content and content in answer else 0
        marker = answer[end:].rstrip() or answer[end:]
        return answer[:end] + marker, answer[end + len(marker) :]

    def _cut(self, text: str, *, learn: bool) -> Iterator[Segment]:
        """Segments of rendered text, with special ids for the placeholders."""
        for part in _MARKS.split(text):
            if part in (_BOS, _EOS):
                name = "bos_token" if part == _BOS else "eos_token"
                spelled = self.tokens.get(name, "")
                yield Segment(text=spelled, learn=learn, begin_of_text=part == _BOS, end_of_text=part == _EOS)
            elif part or learn:
                yield Segment(text=part, learn=learn)

    def _render(self, messages: Sequence[Message], *, prompt: bool) -> str:
        from jinja2 import TemplateError

        values = dict(self.tokens) | {"bos_token": _BOS, "eos_token": _EOS}
        listed = [{"role": message.role, "content": message.content} for message in messages]
        try:
            return _compiled(self.template).render(
                messages=listed, add_generation_prompt=prompt, tools=None, documents=None, **values
            )
        except _Refused as refusal:
            raise ConfigError(
                f"The chat template in {self.source} refuses this conversation: {refusal}",
                needed="messages in an order that the template supports",
                fix="leave the system prompt out, or alternate user and assistant messages",
            ) from None
        except (
            TemplateError,
            ArithmeticError,
            AttributeError,
            LookupError,
            RecursionError,
            TypeError,
            ValueError,
        ) as problem:
            raise CheckpointError(
                f"The chat template in {self.source} fails: {problem or type(problem).__name__}.",
                needed="a Jinja template as Hugging Face's tokenizers use them",
                fix="correct the file, or choose a style: --style NAME",
            ) from problem


class _Refused(Exception):
    """Raised by `raise_exception` in a template."""


def _refuse(message: object) -> NoReturn:
    raise _Refused(str(message))


def _now(pattern: str) -> str:
    return datetime.now().strftime(pattern)


def _to_json(value: object, ensure_ascii: bool = False, indent: int | None = None) -> str:
    """Replaces Jinja's own filter, which escapes for HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent)


@lru_cache(maxsize=16)
def _compiled(source: str) -> Template:
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """`{% generation %}` marks the assistant's text in some templates; its content is rendered."""

        tags = {"generation"}  # noqa: RUF012  # as jinja2 declares it

        def parse(self, parser: Parser) -> list[Node]:
            """The enclosed statements."""
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, Generation]
    )
    environment.filters["tojson"] = _to_json
    environment.globals |= {"raise_exception": _refuse, "strftime_now": _now}
    return environment.from_string(source)


@lru_cache(maxsize=64)
def _warn_of_rewriting(source: str) -> None:
    """Once per file."""
    logger.warning(
        "The chat template in %s changes earlier turns: only the last answer of each conversation is a training target",
        source,
    )
