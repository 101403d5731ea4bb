"""A Hugging Face chat template as a prompt style.

A template only renders complete conversations. bos and eos are rendered as characters that the conversation and the
template do not hold, chosen for each rendering, and then replaced by ids: a message that contains `</s>`, or any other
character, ends no text, and the tokenizer need not parse special tokens.

Where the answers are in the rendered text is found from a second rendering in which each answer is enclosed in two more
such characters. A template that changes answers (some remove the reasoning of earlier turns) may lose them: what it
wrote is context then, without targets. `_by_turns` is the slow way for these, and the reference of the fast one.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from litgpt_core.prompts.message import Message, Role, Segment
from litgpt_core.prompts.style import PromptStyle, ending_with_user
from litgpt_core.prompts.template_marks import Marks, unused_marks
from litgpt_core.prompts.template_process import ChatTemplateError, ChatTemplateRefusal, render_all
from litgpt_core.prompts.turns import arrange, turns_of

logger = logging.getLogger(__name__)

_PROBE = "0a1b2c3d"
_TALK: tuple[tuple[Role, str], ...] = (
    ("system", _PROBE),
    ("user", "?"),
    ("assistant", _PROBE),
    ("user", "??"),
    ("assistant", "yes"),
    ("user", "???"),
)
_Parts = list[tuple[str, bool]]
"""Text, and whether it is a training target."""


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
        return self._shape().takes_system

    def segments(self, messages: Sequence[Message]) -> list[Segment]:
        """See `PromptStyle`.

        If the template changes earlier turns when later ones follow, everything before the last user message is context
        without training targets, as at inference.

        Raises:
            ConfigError: See `arrange`.
            ChatTemplateRefusal: The template refuses the order of the roles.
            ChatTemplateError: The template fails, or leaves out the last answer.
        """
        _, turns = turns_of(messages)
        marks = self._marks(messages, len(turns))
        _, parts = self._by_marks(messages, marks=marks, prompt=turns[-1].answer is None)
        return self._cut(self._by_turns(messages, marks=marks) if parts is None else parts, marks)

    def prompt_segments(self, messages: Sequence[Message]) -> list[Segment]:
        """See `PromptStyle`. Renders twice, whatever the number of turns, and accepts what became of earlier ones."""
        _, turns = turns_of(ending_with_user(messages))
        marks = self._marks(messages, len(turns))
        text, parts = self._by_marks(messages, marks=marks, prompt=True, some=True)
        return self._cut([(text, False)] if parts is None else parts, marks)

    def stop_strings(self) -> tuple[str, ...]:
        """See `PromptStyle`: the template's text between an answer and the eos, if there is any."""
        shape = self._shape()
        end = re.split(f"[{shape.marks.bos}{shape.marks.eos}]", shape.after)[0].strip()
        return (end,) if end else ()

    # ---- where the answers are

    def _by_marks(
        self, messages: Sequence[Message], *, marks: Marks, prompt: bool, some: bool = False
    ) -> tuple[str, _Parts | None]:
        """The rendered text, and its parts: each answer with its end, and what is between.

        The parts are None if an answer is not found; with `some`, only those after the last one that is not found.
        """
        listed = _listed(arrange(messages))
        marked, edges = list[dict[str, str]](), list[tuple[str, str]]()
        for message in listed:
            content = message["content"]
            if message["role"] == "assistant":
                opening, closing = marks.of_turn(len(edges))
                bare = content.strip()  # templates trim: the white space stays outside
                left, _, right = content.partition(bare) if bare else (content, "", "")
                edges.append((left, right))
                content = left + opening + bare + closing + right
            marked.append({"role": message["role"], "content": content})
        text, tagged = self._render([(listed, prompt), (marked, prompt)], marks)
        if isinstance(text, Exception):
            raise text
        if isinstance(tagged, Exception) or marks.without(tagged) != text:
            return text, None
        spans, complete = self._spans(text, tagged, marks, edges=edges)
        if not (complete or some):
            return text, None
        parts, at = _Parts(), 0
        for start, end in spans:
            parts += [(text[at:start], False), (text[start:end], True)]
            at = end
        return text, [*parts, (text[at:], False)]

    def _spans(
        self, text: str, tagged: str, marks: Marks, *, edges: Sequence[tuple[str, str]]
    ) -> tuple[list[tuple[int, int]], bool]:
        """(start, end) of the answers after the last one that is not found, and whether all are found.

        `edges` is the white space around each answer, which the template may have trimmed.
        """
        shape, places = self._shape(), marks.places(tagged)
        before, after = (marks.instead_of(shape.marks, part) for part in (shape.before, shape.after))
        found: list[tuple[int, int]] = []
        complete, last = True, 0
        for number, (left, right) in enumerate(edges):
            starts, ends = (places[mark] for mark in marks.of_turn(number))
            span = None
            if shape.is_regular and len(starts) == len(ends) == 1 and last <= starts[0] <= ends[0]:
                first, behind = starts[0], ends[0]
                heads = [first - len(h) for h in (before + left, before) if text.startswith(h, max(0, first - len(h)))]
                tails = [behind + len(t) for t in (right + after, after) if text.startswith(t, behind)]
                start, end = next(iter(heads), -1), next(iter(tails), -1)
                span = (start, end) if last <= start < end else None
            if span is None:
                found.clear()
                complete = False
            else:
                found.append(span)
                last = span[1]
        return found, complete

    def _by_turns(self, messages: Sequence[Message], *, marks: Marks) -> _Parts:
        """The parts, from renderings of the conversation up to each message: quadratic in the number of turns."""
        system, turns = turns_of(messages)
        sent = [] if system is None else [Message(role="system", content=system)]
        so_far: str | None = ""
        parts = _Parts()
        for turn in turns:
            sent.append(Message(role="user", content=turn.user))
            prompt = self._rendered(sent, marks, prompt=True)
            if so_far is not None and prompt.startswith(so_far):
                parts.append((prompt[len(so_far) :], False))
            else:
                _warn_of_rewriting(self.source)
                parts = [(prompt, False)]
            so_far = prompt
            if turn.answer is not None:
                sent.append(Message(role="assistant", content=turn.answer))
                answer = _answer(self._rendered(sent, marks, prompt=False), prompt, turn.answer.strip())
                if answer is None and turn is turns[-1]:
                    raise ChatTemplateError(
                        f"The chat template in {self.source} leaves out the assistant's messages, or changes them.",
                        needed="a template that renders every message",
                        fix="choose a style instead: --style NAME",
                    )
                if answer is not None:
                    parts += [(answer[0], True), (answer[1], False)]
                so_far = None if answer is None else so_far + answer[0] + answer[1]
        return parts

    def _cut(self, parts: _Parts, marks: Marks) -> list[Segment]:
        """Segments of rendered text, with special ids for the marks."""
        return [segment for text, learn in parts for segment in self._cut_one(text, marks, learn=learn)]

    def _cut_one(self, text: str, marks: Marks, *, learn: bool) -> Iterator[Segment]:
        for part in re.split(f"([{marks.bos}{marks.eos}])", text):
            if part and part in (marks.bos, marks.eos):
                is_bos = part == marks.bos
                spelled = self.tokens.get("bos_token" if is_bos else "eos_token", "")
                yield Segment(text=spelled, learn=learn, begin_of_text=is_bos, end_of_text=not is_bos)
            elif part or learn:
                yield Segment(text=part, learn=learn)

    # ---- rendering

    def _marks(self, messages: Sequence[Message], n_turns: int) -> Marks:
        return unused_marks([self.template, *self.tokens.values(), *(m.content for m in messages)], 2 + 2 * n_turns)

    def _rendered(self, messages: Sequence[Message], marks: Marks, *, prompt: bool) -> str:
        [text] = self._render([(_listed(messages), prompt)], marks)
        if isinstance(text, Exception):
            raise text
        return text

    def _render(
        self, conversations: Sequence[tuple[list[dict[str, str]], bool]], marks: Marks
    ) -> list[str | ChatTemplateError | ChatTemplateRefusal]:
        values = dict(self.tokens) | {"bos_token": marks.bos, "eos_token": marks.eos}
        return render_all(self.template, values, conversations, source=self.source)

    def _shape(self) -> _Shape:
        return _shape(self.template, tuple(sorted(self.tokens.items())), self.source)


@dataclass(frozen=True, kw_only=True)
class _Shape:
    """What a template writes around an answer, from a conversation of one turn."""

    marks: Marks
    takes_system: bool
    before: str
    """Between the end of the prompt and the answer."""
    after: str
    """The end of the answer's turn, without white space at its end."""
    is_regular: bool
    """Whether every rendering begins with that of the messages before. Not so where the prompt ends with text that is
    not rendered afterwards, or where the system prompt moves to the newest message.
    """


@lru_cache(maxsize=64)
def _shape(template: str, tokens: tuple[tuple[str, str], ...], source: str) -> _Shape:
    """Raises ChatTemplateError only if the template takes too long."""
    style = TemplateStyle(template=template, source=source, tokens=dict(tokens))
    marks = unused_marks([template, *dict(tokens).values(), _PROBE], 2)
    talk = [Message(role=role, content=text) for role, text in _TALK]
    prompts = [talk[start : end + 1] for end in (1, 3, 5) for start in (0, 1)]  # 1 to 3 turns, with and without system
    replies = style._render([(_listed(prompt), True) for prompt in prompts] + [(_listed(talk[1:3]), False)], marks)
    system, prompt, full = replies[0], replies[1], replies[-1]
    before, after, is_regular = "", "", False
    if isinstance(prompt, str) and isinstance(full, str) and (answer := _answer(full, prompt, _PROBE)) is not None:
        before, _, after = answer[0].partition(_PROBE)
        pairs = zip(replies[:4], replies[2:6], strict=True)
        grows = [longer.startswith(text) for text, longer in pairs if isinstance(text, str) and isinstance(longer, str)]
        is_regular = full.startswith(prompt) and all(grows)
    takes_system = isinstance(system, str) and _PROBE in system
    return _Shape(marks=marks, takes_system=takes_system, before=before, after=after, is_regular=is_regular)


def _answer(full: str, prompt: str, content: str) -> tuple[str, str] | None:
    """The assistant's text after `prompt`, including the end of its turn, and the white space after that.

    None if the content is not there.
    """
    # otherwise the prompt starts the answer with something that the template does not render afterwards
    start = len(prompt) if full.startswith(prompt) else full.rfind(content) if content in full else len(full)
    answer = full[start:]
    if content and not answer.strip():
        return None
    end = answer.rfind(content) + len(content) if content and content in answer else 0
    marker = answer[end:].rstrip() or answer[end:]
    return answer[:end] + marker, answer[end + len(marker) :]


def _listed(messages: Sequence[Message]) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in messages]


@lru_cache(maxsize=64)
def _warn_of_rewriting(source: str) -> None:
    """Once per file."""
    logger.warning(
        "The chat template in %s changes earlier turns: only the last answer of each conversation is a training target",
        source,
    )
