"""Prompt styles defined by data: every turn is formatted by the same pattern.

start  system  first_turn  answer end  between  turn  answer end  between  turn ...
                           ----------                 ----------
                           target                     target
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from litgpt_core.prompts.message import Message, Segment
from litgpt_core.prompts.style import PromptStyle
from litgpt_core.prompts.turns import turns_of

SYSTEM, USER = "{system}", "{user}"
"""Placeholders for the messages in a pattern; other braces are literal."""


@dataclass(frozen=True, kw_only=True)
class TurnStyle(PromptStyle):
    """See the module docstring. Final."""

    name: str
    description: str
    turn: str
    """Contains `{user}`; ends where the assistant's answer begins."""
    start: str = ""
    """The beginning of the text."""
    system: str = ""
    """Contains `{system}`; empty if the style does not support a system prompt."""
    default_system: str = ""
    """The system prompt of a conversation without one; if empty, `system` is left out."""
    first_turn: str | None = None
    """The turn right after a system prompt, if it has another format."""
    end: str = ""
    """Text that ends an answer; if empty, the tokenizer's eos does."""
    between: str = ""
    """Text between the end of an answer and the next turn."""
    bos_between: bool = False
    """Whether every turn after the first begins with the tokenizer's bos."""
    stops: tuple[str, ...] = ()
    """Additional stop strings."""
    strip_system: bool = False
    """Whether white space around a system prompt is removed."""
    litgpt_class: str | None = None
    """Name of the class in `litgpt.prompts`; None if LitGPT has no such style."""

    def __post_init__(self) -> None:
        assert self.turn.count(USER) == 1 and (self.first_turn or USER).count(USER) == 1, self.name
        assert self.system.count(SYSTEM) == bool(self.system), self.name

    def takes_system(self) -> bool:
        """See `PromptStyle`."""
        return bool(self.system)

    def segments(self, messages: Sequence[Message]) -> list[Segment]:
        """See `PromptStyle`."""
        given, turns = turns_of(messages)
        system = (given or self.default_system) if self.system else ""
        system = system.strip() if self.strip_system else system
        segments = [Segment(text=self.start + (self.system.replace(SYSTEM, system) if system else ""))]
        for place, turn in enumerate(turns):
            if place:
                segments.append(Segment(text=self.between))
                if self.bos_between:
                    segments.append(Segment(text="", begin_of_text=True))
            first = place == 0 and system and self.first_turn is not None
            before, after = ((self.first_turn or "") if first else self.turn).split(USER)
            segments.append(Segment(text=before + turn.user + after))
            if turn.answer is not None:
                segments.append(Segment(text=turn.answer + self.end, learn=True))
                if not self.end:
                    segments.append(Segment(text="", learn=True, end_of_text=True))
        return segments

    def stop_strings(self) -> tuple[str, ...]:
        """See `PromptStyle`."""
        return (*([self.end] if self.end else []), *self.stops)


@dataclass(frozen=True, kw_only=True)
class PlainStyle(PromptStyle):
    """The messages as lines of one text, without role markers, for base models. Final.

    Each user message starts a new line; eos is only at the end, because it would end the text.
    """

    name: str = "plain"
    description: str = "the messages as one text, without role markers: a base model continues it"
    litgpt_class: str | None = "Default"

    def takes_system(self) -> bool:
        """See `PromptStyle`."""
        return True

    def segments(self, messages: Sequence[Message]) -> list[Segment]:
        """See `PromptStyle`."""
        system, turns = turns_of(messages)
        segments = [Segment(text=f"{system}\n" if system else "")]
        for place, turn in enumerate(turns):
            segments.append(Segment(text=("\n" if place else "") + turn.user))
            if turn.answer is not None:
                segments.append(Segment(text=turn.answer, learn=True))
        if turns[-1].answer is not None:
            segments.append(Segment(text="", learn=True, end_of_text=True))
        return segments

    def stop_strings(self) -> tuple[str, ...]:
        """None: a base model continues until the end of the document."""
        return ()
