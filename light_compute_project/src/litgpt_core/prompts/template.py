"""A Hugging Face chat template as a prompt style: Jinja, in a sandbox.

The template only renders whole conversations. What the assistant writes is found by rendering beginnings of the
conversation and comparing. bos and eos are rendered as marks that no message holds, and become ids, so that a message
which spells `</s>` does not end a text, and a tokenizer that does not read specials out of text serves too.
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
"""Marks from the private use area."""
_MARKS = re.compile(f"({_BOS}|{_EOS})")
_PROBE = "0a1b2c3d"


@dataclass(frozen=True, kw_only=True)
class TemplateStyle(PromptStyle):
    """See the module. Final."""

    template: str
    """Jinja source: `chat_template` of `tokenizer_config.json`."""
    source: str
    """The file it came from, for messages."""
    tokens: Mapping[str, str] = field(default_factory=dict)
    """Special tokens that it may name: bos_token, eos_token, pad_token, ..."""
    name: str = "chat_template"
    description: str = "the Hugging Face chat template that lies beside the model"

    def takes_system(self) -> bool:
        """See `PromptStyle`: found out by trying."""
        messages = [Message(role="system", content=_PROBE), Message(role="user", content="?")]
        try:
            return _PROBE in self._render(messages, prompt=True)
        except ConfigError:
            return False

    def segments(self, messages: Sequence[Message]) -> list[Segment]:
        """See `PromptStyle`.

        Where the template writes earlier turns differently once later ones follow (some drop the reasoning), what came
        before the last question is text to read only, as at inference.

        Raises:
            ConfigError: An order that no conversation has, or that this template refuses.
            CheckpointError: The template fails, or does not write down what the assistant says.
        """
        system, turns = turns_of(messages)
        told = [] if system is None else [Message(role="system", content=system)]
        so_far, parts = "", list[tuple[str, bool]]()
        for turn in turns:
            told.append(Message(role="user", content=turn.user))
            asked = self._render(told, prompt=True)
            if asked.startswith(so_far):
                parts.append((asked[len(so_far) :], False))
            else:
                _warn_of_rewriting(self.source)
                parts = [(asked, False)]
            so_far = asked
            if turn.answer is not None:
                told.append(Message(role="assistant", content=turn.answer))
                answer, rest = self._answer(told, asked)
                parts += [(answer, True), (rest, False)]
                so_far += answer + rest
        return [segment for text, learn in parts for segment in self._cut(text, learn=learn)]

    def stop_strings(self) -> tuple[str, ...]:
        """See `PromptStyle`: what stands between an answer and the eos, if the template writes text there."""
        messages = [Message(role="user", content="?"), Message(role="assistant", content=_PROBE)]
        try:
            answer, _ = self._answer(messages, self._render(messages[:1], prompt=True))
        except ConfigError:
            return ()
        end = _MARKS.split(answer.partition(_PROBE)[2])[0].strip()
        return (end,) if end else ()

    def _answer(self, messages: Sequence[Message], asked: str) -> tuple[str, str]:
        """What the assistant writes after `asked`, up to the end of its turn, and the white space after that."""
        whole = self._render(messages, prompt=False)
        content = messages[-1].content.strip()
        if whole.startswith(asked):
            written = whole[len(asked) :]
        else:  # the prompt begins the answer with something that the template leaves out afterwards
            written = whole[whole.rfind(content) :] if content in whole else ""
        if content and not written.strip():
            raise CheckpointError(
                f"The chat template in {self.source} leaves out what the assistant says.",
                needed="a template that writes every message",
                fix="name a style instead: --style NAME",
            )
        end = written.rfind(content) + len(content) if content and content in written else 0
        marker = written[end:].rstrip() or written[end:]
        return written[:end] + marker, written[end + len(marker) :]

    def _cut(self, text: str, *, learn: bool) -> Iterator[Segment]:
        """Segments of rendered text, ids in place of the marks."""
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
                needed="messages in the order that its model knows",
                fix="leave the system text out, or let user and assistant take turns",
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
                fix="mend the file, or name a style instead: --style NAME",
            ) from problem


class _Refused(Exception):
    """What `raise_exception` of a template raises."""


def _refuse(message: object) -> NoReturn:
    raise _Refused(str(message))


def _now(pattern: str) -> str:
    return datetime.now().strftime(pattern)


def _to_json(value: object, ensure_ascii: bool = False, indent: int | None = None) -> str:
    """Jinja's own escapes for HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent)


@lru_cache(maxsize=16)
def _compiled(source: str) -> Template:
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """`{% generation %}` marks the assistant's words in some templates; what it encloses is kept."""

        tags = {"generation"}  # noqa: RUF012  # jinja2 declares it so

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
        "The chat template in %s rewrites earlier turns: of each conversation, only the last answer is learnt", source
    )
