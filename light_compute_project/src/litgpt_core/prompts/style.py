"""The interface of prompt styles: formats a conversation as the text that a model expects."""

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
    """The conversation format of a family of models.

    Attributes:
        name: Its name on the command line, such as `llama3`.
        description: A short description for lists.
    """

    name: str
    description: str

    @abstractmethod
    def takes_system(self) -> bool:
        """Whether it supports a system prompt; otherwise `encode` puts that text into the first user message."""

    @abstractmethod
    def segments(self, messages: Sequence[Message]) -> list[Segment]:
        """The formatted conversation; if the last message is the user's, up to the start of the assistant's answer.

        `learn` is true exactly for the assistant's content and the end of its turn.

        The messages are arranged first; errors are those of `turns.arrange`.
        """

    def prompt_segments(self, messages: Sequence[Message]) -> list[Segment]:
        """`segments` of a conversation whose last message is the user's; `learn` has no meaning."""
        return self.segments(ending_with_user(messages))

    @abstractmethod
    def stop_strings(self) -> tuple[str, ...]:
        """Strings that end an answer and are not part of it."""

    def prompt(self, messages: Sequence[Message]) -> str:
        """The text of the prompt, for display.

        Models get the ids of `encode_prompt`, which includes special tokens without a spelling.

        Raises ConfigError unless the last message is the user's.
        """
        return "".join(segment.text for segment in self.prompt_segments(messages))

    def stop_tokens(self, tokenizer: Tokenizer) -> frozenset[int]:
        """Ids that end an answer: eos, and every stop string that is a single token."""
        ids = {tokenizer.eos_id}
        for text in self.stop_strings():
            with contextlib.suppress(TokenizerError):  # not in the vocabulary: cannot be generated either
                encoded = tokenizer.encode(text)
                ids.update(encoded if len(encoded) == 1 else ())
        return frozenset(ids)


def ending_with_user(messages: Sequence[Message]) -> Sequence[Message]:
    """Returns `messages` if the last one is the user's; raises ConfigError otherwise."""
    if not messages or messages[-1].role != "user":
        given = f"ends with the {messages[-1].role}" if messages else "has no message"
        raise ConfigError(f"The conversation {given}.", needed="a last message of the user to answer")
    return messages
