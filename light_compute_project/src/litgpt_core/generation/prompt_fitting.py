"""Fits a conversation into the context window, leaving room for the answer.

The prompt holds the system prompt, the newest message, and as many turns before it as fit; the oldest are left out
first. A base model has no turns: its prompt is the system prompt and as much of the end of the text as fits.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from litgpt_core.core.errors import ConfigError
from litgpt_core.prompts import Message, PromptStyle, encode_prompt, style_named

if TYPE_CHECKING:
    from litgpt_core.tokenizers.base import Tokenizer

BASE_STYLE = "plain"
"""The prompt style for base models: messages joined as plain text."""


class PromptTooLong(ConfigError):
    """A single message exceeds the context window."""


@dataclass(frozen=True, kw_only=True)
class FittedPrompt:
    """A prompt that fits the context window."""

    ids: tuple[int, ...]
    """Token ids, with bos where the model expects it."""
    turns_left_out: int
    """Number of oldest turns that did not fit; 0 for a base model, whose text is cut at any token."""


def fit_prompt(
    messages: Sequence[Message],
    *,
    style: PromptStyle | None,
    tokenizer: Tokenizer,
    block_size: int,
    max_new_tokens: int,
) -> FittedPrompt:
    """The prompt of a conversation whose last message is the user's.

    Args:
        messages: The first may be the system prompt.
        style: The model's prompt style; None for a base model.
        tokenizer: The model's tokenizer.
        block_size: The context window in tokens.
        max_new_tokens: Maximum length of the answer; reserved in the window, up to half of it.

    Raises:
        PromptTooLong: The newest message (with the system prompt) does not fit; a ConfigError.
        ConfigError: The roles are in an invalid order.
        TokenizerError: The vocabulary cannot represent it.
    """
    system = [message for message in messages[:1] if message.role == "system"]
    turns = messages[len(system) :]
    room = block_size - min(max_new_tokens, block_size // 2)
    if style is None:
        base = style_named(BASE_STYLE)
        ids = encode_prompt(base, tokenizer, messages)
        if len(ids) > room:
            kept = tokenizer.encode(f"{system[0].content}\n")[: room // 2] if system else []
            ids = [*kept, *ids[len(kept) - room :]]
        return FittedPrompt(ids=tuple(ids), turns_left_out=0)
    starts = [place for place, message in enumerate(turns) if message.role == "user"] or [0]
    encoded: dict[int, list[int]] = {}

    def fits(turn: int) -> bool:
        encoded[turn] = encode_prompt(style, tokenizer, [*system, *turns[starts[turn] :]])
        return len(encoded[turn]) <= room

    first = bisect.bisect_left(range(len(starts) - 1), True, key=fits)
    ids = encoded.get(first) or encode_prompt(style, tokenizer, [*system, *turns[starts[first] :]])
    if len(ids) >= block_size:
        raise PromptTooLong(
            f"The message has {len(ids)} tokens, including the prompt style's own.",
            needed=f"fewer than the {block_size} tokens of this model's context window",
            fix="shorten the message" + (" or the system prompt" if system else ""),
        )
    return FittedPrompt(ids=tuple(ids), turns_left_out=first)
