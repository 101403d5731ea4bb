"""A conversation as token ids with a loss mask, truncated to the model's context.

Targets are the assistant's answers and the tokens that end them, except answers that were rated down. A conversation
that is too long loses its oldest exchanges until it fits; its system message stays. A last exchange that does not fit
by itself loses its beginning.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from litgpt_core.core.errors import ConfigError, LightComputeError, TokenizerError
from litgpt_core.data.chat_rows import ChatExample
from litgpt_core.data.files import shown
from litgpt_core.prompts.encode import encode_conversation
from litgpt_core.prompts.message import Message
from litgpt_core.prompts.style import PromptStyle
from litgpt_core.prompts.template_process import ChatTemplateError
from litgpt_core.tokenizers.base import Tokenizer

logger = logging.getLogger(__name__)

SHOWN = 5
"""Conversations that the log names; all are counted."""


@dataclass(frozen=True, kw_only=True)
class EncodedChat:
    """One conversation as it is stored for training."""

    ids: list[int]
    loss_mask: list[bool]
    """One per id: whether it is a target. The first id is never predicted, so its value has no effect."""
    answer_bytes: int
    """UTF-8 bytes of the answers that are targets."""
    exchanges_cut: int
    """Oldest exchanges that were removed."""
    tokens_cut: int
    """Ids that were removed from the beginning of the last exchange."""

    @property
    def targets(self) -> int:
        """Number of targets."""
        return sum(self.loss_mask[1:])


def encode_chat(
    conversation: ChatExample, *, style: PromptStyle, tokenizer: Tokenizer, block_size: int
) -> EncodedChat | None:
    """At most block_size + 1 ids: block_size inputs and the tokens after them. None if there is no target.

    Raises:
        TokenizerError: The vocabulary cannot represent the text.
        ConfigError: The prompt style does not allow the conversation.
    """
    system = [m for m in conversation.messages[:1] if m.role == "system"]
    rest = conversation.messages[len(system) :]
    exchanges = [rest[i : i + 2] for i in range(0, len(rest), 2)]
    for cut in range(len(exchanges)):
        kept = exchanges[cut:]
        messages = [*system, *(message for exchange in kept for message in exchange)]
        ids, loss_mask = encode_conversation(style, tokenizer, messages)
        if len(ids) <= block_size + 1 or len(kept) == 1:
            break
    answer_bytes = _unmask_refused(loss_mask, kept, refused={n - cut for n in conversation.refused})
    tokens_cut = max(0, len(ids) - block_size - 1)
    if tokens_cut:
        ids, loss_mask = ids[tokens_cut:], loss_mask[tokens_cut:]
        text = tokenizer.decode([i for i, flag in zip(ids, loss_mask, strict=True) if flag])
        answer_bytes = len(text.encode("utf-8"))
    encoded = EncodedChat(
        ids=ids, loss_mask=loss_mask, answer_bytes=answer_bytes, exchanges_cut=cut, tokens_cut=tokens_cut
    )
    return encoded if encoded.targets and encoded.answer_bytes else None


class EncodingProblems:
    """Why conversations could not be encoded: each by its identity, once."""

    def __init__(self) -> None:
        self.reasons: dict[str, str] = {}

    def add(self, conversation: ChatExample, problem: LightComputeError) -> None:
        """Record the reason for one conversation."""
        self.reasons.setdefault(conversation.identity, problem.given)

    def first(self) -> str:
        """The first reason in brackets, for an error; empty if there is none."""
        return f" (first: {next(iter(self.reasons.values()))})" if self.reasons else ""

    def report(self, name: str) -> None:
        """Log the first reasons, and the number of all."""
        for identity, reason in list(self.reasons.items())[:SHOWN]:
            logger.warning("data %s: conversation %s left out: %s", name, shown(identity[:12]), reason)
        if len(self.reasons) > SHOWN:
            logger.warning("data %s: %s more conversations left out", name, f"{len(self.reasons) - SHOWN:,}")


def encode_or_leave_out(
    conversation: ChatExample,
    style: PromptStyle,
    tokenizer: Tokenizer,
    block_size: int,
    problems: EncodingProblems,
) -> EncodedChat | None:
    """None for a conversation that this prompt style, template or vocabulary cannot represent; `problems` says why."""
    try:
        return encode_chat(conversation, style=style, tokenizer=tokenizer, block_size=block_size)
    except (TokenizerError, ConfigError, ChatTemplateError) as problem:
        problems.add(conversation, problem)
        return None


def _unmask_refused(loss_mask: list[bool], exchanges: list[tuple[Message, ...]], *, refused: set[int]) -> int:
    """Clear the mask of refused answers, in place; returns the UTF-8 bytes of the other answers.

    Each unbroken run of True is one answer. A chat template that rewrites earlier turns has runs for the last answers
    only, so they are counted from the end.
    """
    starts = [i for i, flag in enumerate(loss_mask) if flag and not (i and loss_mask[i - 1])]
    answer_bytes = 0
    for from_end, start in enumerate(reversed(starts), start=1):
        number = len(exchanges) - from_end
        if number in refused:
            i = start
            while i < len(loss_mask) and loss_mask[i]:
                loss_mask[i] = False
                i += 1
        else:
            answer_bytes += len(exchanges[number][1].content.encode("utf-8"))
    return answer_bytes
