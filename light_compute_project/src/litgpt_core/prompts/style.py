"""The one face of every prompt style: a conversation in, the text that the model expects out."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

from litgpt_core.core.errors import ConfigError, TokenizerError
from litgpt_core.prompts.message import Message, Segment

if TYPE_CHECKING:
    from litgpt_core.tokenizers.base import Tokenizer


class PromptStyle(ABC):
    """How one family of models wants a conversation written.

    Attributes:
        name: What people type, such as `llama3`.
        description: Half a sentence for a list.
    """

    name: str
    description: str

    @abstractmethod
    def takes_system(self) -> bool:
        """Whether a system message has a place in it; where it has none, the text is left out."""

    @abstractmethod
    def segments(self, messages: Sequence[Message]) -> list[Segment]:
        """The whole conversation; after a last message of the user, up to where the assistant begins to write.

        `learn` is true exactly for the assistant's content and for what ends its turn.

        Raises:
            ConfigError: The messages are in no order that a conversation can have; see `turns`.
        """

    @abstractmethod
    def stop_strings(self) -> tuple[str, ...]:
        """Texts that end an answer and are no part of it."""

    def prompt(self, messages: Sequence[Message]) -> str:
        """The text up to where the assistant begins to write, for people.

        A model reads `encode_prompt`, which knows the ids of tokens that have no spelling here.

        Raises ConfigError unless the last message is the user's.
        """
        return "".join(segment.text for segment in self.segments(ending_with_user(messages)))

    def stop_tokens(self, tokenizer: Tokenizer) -> frozenset[int]:
        """Ids that end an answer: eos, and every stop text that is one token."""
        ids = {tokenizer.eos_id}
        for text in self.stop_strings():
            with contextlib.suppress(TokenizerError):  # a character that the vocabulary lacks: it cannot come either
                encoded = tokenizer.encode(text)
                ids.update(encoded if len(encoded) == 1 else ())
        return frozenset(ids)


def ending_with_user(messages: Sequence[Message]) -> Sequence[Message]:
    """`messages`, if the assistant speaks next; else ConfigError."""
    if not messages or messages[-1].role != "user":
        given = f"ends with the {messages[-1].role}" if messages else "has no message"
        raise ConfigError(f"The conversation {given}.", needed="a last message of the user, which can be answered")
    return messages
