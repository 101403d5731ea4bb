"""Messages of a conversation (Message), and the segments of text into which a style formats them (Segment)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from litgpt_core.core.errors import ConfigError

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True, kw_only=True)
class Message:
    """One message of a conversation."""

    role: Role
    """The author. A system message comes first and tells the assistant how to behave."""
    content: str
    """Plain text."""

    def __post_init__(self) -> None:
        if self.role not in get_args(Role):
            raise ConfigError(f"A message has the role {self.role!r}.", needed="system, user or assistant")
        if not isinstance(self.content, str):
            raise ConfigError(
                f"The content of a message of the {self.role} is {type(self.content).__name__}.", needed="a string"
            )


@dataclass(frozen=True, kw_only=True)
class Segment:
    """A part of a formatted conversation; consecutive segments form the complete text."""

    text: str
    """The text. With end_of_text or begin_of_text at most the spelling of that token, for display."""
    learn: bool = False
    """Whether it is a training target: the assistant's content and the end of its turn."""
    end_of_text: bool = False
    """Encoded as the tokenizer's eos id."""
    begin_of_text: bool = False
    """Encoded as the tokenizer's bos id, if it has one."""

    @property
    def is_token(self) -> bool:
        """Whether it is encoded as one special id."""
        return self.end_of_text or self.begin_of_text
