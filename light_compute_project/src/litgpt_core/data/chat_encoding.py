"""A conversation to ids, with a flag for each id that is learnt, cut to what a row of the model holds.

What is learnt is what the assistant writes: its answers and what ends them, except answers that were rated down. A
conversation that is too long loses its oldest exchanges, whole ones, until it fits; its system text stays. A last
exchange that does not fit by itself loses its beginning.
"""

from __future__ import annotations

from dataclasses import dataclass

from litgpt_core.data.chat_rows import ChatExample
from litgpt_core.prompts.encode import encode_conversation
from litgpt_core.prompts.message import Message
from litgpt_core.prompts.style import PromptStyle
from litgpt_core.tokenizers.base import Tokenizer


@dataclass(frozen=True, kw_only=True)
class EncodedChat:
    """One conversation as a row of training holds it."""

    ids: list[int]
    learn: list[bool]
    """One per id; the first id has no prediction, so its flag has no effect."""
    answer_bytes: int
    """UTF-8 bytes of the answers that are learnt."""
    exchanges_cut: int
    """Oldest exchanges that had to go."""
    tokens_cut: int
    """Ids that had to go from the beginning of the last exchange."""

    @property
    def targets(self) -> int:
        """Ids that are learnt."""
        return sum(self.learn[1:])


def encode_chat(
    conversation: ChatExample, *, style: PromptStyle, tokenizer: Tokenizer, block_size: int
) -> EncodedChat | None:
    """Ids of at most block_size + 1, of which block_size are inputs and block_size targets; None if nothing is learnt.

    Raises:
        TokenizerError: The vocabulary cannot represent the text.
        ConfigError: The style refuses the conversation.
    """
    system = [m for m in conversation.messages[:1] if m.role == "system"]
    rest = conversation.messages[len(system) :]
    exchanges = [rest[i : i + 2] for i in range(0, len(rest), 2)]
    for cut in range(len(exchanges)):
        kept = exchanges[cut:]
        messages = [*system, *(message for exchange in kept for message in exchange)]
        ids, learn = encode_conversation(style, tokenizer, messages)
        if len(ids) <= block_size + 1 or len(kept) == 1:
            break
    answer_bytes = _keep_what_is_learnt(learn, kept, refused={n - cut for n in conversation.refused})
    tokens_cut = max(0, len(ids) - block_size - 1)
    if tokens_cut:
        ids, learn = ids[tokens_cut:], learn[tokens_cut:]
        text = tokenizer.decode([i for i, flag in zip(ids, learn, strict=True) if flag])
        answer_bytes = len(text.encode("utf-8"))
    encoded = EncodedChat(ids=ids, learn=learn, answer_bytes=answer_bytes, exchanges_cut=cut, tokens_cut=tokens_cut)
    return encoded if encoded.targets and encoded.answer_bytes else None


def _keep_what_is_learnt(learn: list[bool], exchanges: list[tuple[Message, ...]], *, refused: set[int]) -> int:
    """Take the flags of refused answers away, in place; returns the bytes of the answers whose flags stay.

    Each unbroken run of flags is one answer. A chat template that rewrites earlier turns has runs for the last answers
    only, so they are counted from the end.
    """
    starts = [i for i, flag in enumerate(learn) if flag and not (i and learn[i - 1])]
    answer_bytes = 0
    for place, start in enumerate(reversed(starts), start=1):
        number = len(exchanges) - place
        if number in refused:
            i = start
            while i < len(learn) and learn[i]:
                learn[i] = False
                i += 1
        else:
            answer_bytes += len(exchanges[number][1].content.encode("utf-8"))
    return answer_bytes
