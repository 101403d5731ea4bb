"""Fits a conversation into the context window, leaving room for the answer.

The prompt holds the system prompt, the newest message, and as many turns before it as fit; the oldest are left out
first. A base model has no turns: its prompt is the system prompt and as much of the end of the text as fits.
"""

from __future__ import annotations

import bisect
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from litgpt_core.core.errors import ConfigError, TokenizerError
from litgpt_core.prompts import Message, PromptStyle, encode_prompt, style_named
from litgpt_core.prompts.encode import naming_the_message
from litgpt_core.prompts.style import ending_with_user
from litgpt_core.prompts.turns import arrange

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
    answer_so_far: str = "",
) -> FittedPrompt:
    """The prompt of a conversation whose last message is the user's.

    Args:
        messages: In any order that `prompts.turns.arrange` takes.
        style: The model's prompt style; None for a base model.
        tokenizer: The model's tokenizer.
        block_size: The context window in tokens.
        max_new_tokens: Maximum length of the answer; reserved in the window, up to half of it.
        answer_so_far: The beginning of the answer, which is to be continued.

    Raises:
        PromptTooLong: The newest message (with the system prompt) does not fit; a ConfigError.
        ConfigError: The last message is not the user's.
        TokenizerError: The vocabulary cannot represent it.
    """
    try:
        return _fitted(
            arrange(ending_with_user(messages)),
            style=style,
            tokenizer=tokenizer,
            block_size=block_size,
            max_new_tokens=max_new_tokens,
            answer_so_far=answer_so_far,
        )
    except TokenizerError as problem:
        raise naming_the_message(problem, tokenizer, messages) from None


def _fitted(
    arranged: list[Message],
    *,
    style: PromptStyle | None,
    tokenizer: Tokenizer,
    block_size: int,
    max_new_tokens: int,
    answer_so_far: str,
) -> FittedPrompt:
    system = [message for message in arranged[:1] if message.role == "system"]
    turns = arranged[len(system) :]
    room = block_size - min(max_new_tokens, block_size // 2)
    if style is None:
        base = style_named(BASE_STYLE)
        ids = encode_prompt(base, tokenizer, arranged, answer_so_far=answer_so_far)
        if len(ids) > room:
            kept = tokenizer.encode(f"{system[0].content}\n")[: room // 2] if system else []
            ids = [*kept, *ids[len(kept) - room :]]
        return FittedPrompt(ids=tuple(ids), turns_left_out=0)
    n_turns = (len(turns) + 1) // 2

    @functools.lru_cache(maxsize=2)
    def encoded(n: int) -> list[int]:
        """The prompt with the newest n turns."""
        kept = [*system, *turns[2 * (n_turns - n) :]]
        return encode_prompt(style, tokenizer, kept, answer_so_far=answer_so_far)

    kept_turns = _most_that_fit(n_turns, fits=lambda n: len(encoded(n)) <= room)
    ids = encoded(kept_turns)
    if len(ids) >= block_size:
        raise PromptTooLong(
            f"The message has {len(ids)} tokens, including the prompt style's own.",
            needed=f"fewer than the {block_size} tokens of this model's context window",
            fix="shorten the message" + (" or the system prompt" if system else ""),
        )
    return FittedPrompt(ids=tuple(ids), turns_left_out=n_turns - kept_turns)


def _most_that_fit(n: int, *, fits: Callable[[int], bool]) -> int:
    """The largest number of turns that fits, at least 1: doubled until it does not fit, then halved in between.

    So only as much of a long conversation is formatted as fits, and a few times that.
    """
    least, tried = 1, 2
    while tried < n and fits(tried):
        least, tried = tried, 2 * tried
    candidates = range(least + 1, min(tried, n) + 1)
    return least + bisect.bisect_left(candidates, True, key=lambda count: not fits(count))
