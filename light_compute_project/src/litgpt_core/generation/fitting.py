"""How much of a conversation a model sees: what fits its window and leaves room for an answer.

The system text, the newest message, and as many turns before it as fit; the oldest are left out first. A base model has
no turns, only text: it sees the system text and as much of the rest's end as fits.
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
"""How a conversation is put to a model that knows none: as text that goes on."""


class PromptTooLong(ConfigError):
    """A message alone is longer than the model's window."""


@dataclass(frozen=True, kw_only=True)
class FittedPrompt:
    """What the model sees."""

    ids: tuple[int, ...]
    """With bos where the model wants it."""
    turns_left_out: int
    """Oldest turns that found no room; 0 for a base model, whose text is cut anywhere instead."""


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
        messages: The first may be the system's.
        style: Of the model; None for a base model.
        tokenizer: Of the model.
        block_size: Tokens that the model sees at once.
        max_new_tokens: Longest answer; room is kept for it, up to half the window.

    Raises:
        PromptTooLong: The newest message (with the system text) does not fit; a ConfigError.
        ConfigError: The order is wrong.
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
            f"The message has {len(ids)} tokens with all that is written around it.",
            needed=f"fewer than the {block_size} tokens that this model sees at once",
            fix="say it shorter" + (", or shorten the system text" if system else ""),
        )
    return FittedPrompt(ids=tuple(ids), turns_left_out=first)
