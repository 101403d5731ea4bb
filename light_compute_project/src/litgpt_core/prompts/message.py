"""What people and models say (Message), and the stretches of text that a style makes of it (Segment)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from litgpt_core.core.errors import ConfigError

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True, kw_only=True)
class Message:
    """One message of a conversation."""

    role: Role
    """Who says it. A system message stands first and says how the assistant should behave."""
    content: str
    """What is said, as plain text."""

    def __post_init__(self) -> None:
        if self.role not in get_args(Role):
            raise ConfigError(f"A message has the role {self.role!r}.", needed="system, user or assistant")
        if not isinstance(self.content, str):
            raise ConfigError(
                f"The content of a message of the {self.role} is {type(self.content).__name__}.", needed="text"
            )


@dataclass(frozen=True, kw_only=True)
class Segment:
    """A stretch of a formatted conversation. Segments side by side join to the whole text."""

    text: str
    """The text itself. With end_of_text or begin_of_text at most that token's spelling, for people."""
    learn: bool = False
    """Whether the assistant must write this: its content and whatever ends its turn."""
    end_of_text: bool = False
    """The tokenizer's eos id stands here instead of text."""
    begin_of_text: bool = False
    """The tokenizer's bos id stands here instead of text, if it has one."""

    @property
    def is_token(self) -> bool:
        """Whether one special id stands here instead of text."""
        return self.end_of_text or self.begin_of_text
