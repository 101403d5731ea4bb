"""Encodes a formatted conversation to token ids, identically for training and inference.

The text is encoded segment by segment: prompt, answer, next prompt. No token spans the boundary of two segments, so
that the ids before an answer are the same with and without the answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from litgpt_core.core.errors import TokenizerError
from litgpt_core.prompts.message import Message, Segment
from litgpt_core.prompts.spelled_tokens import parts, replace_spelled
from litgpt_core.prompts.style import PromptStyle, ending_with_user
from litgpt_core.prompts.turns import with_system_in_first_turn

if TYPE_CHECKING:
    from litgpt_core.tokenizers.base import Tokenizer


def encode_prompt(
    style: PromptStyle, tokenizer: Tokenizer, messages: Sequence[Message], *, answer_so_far: str = ""
) -> list[int]:
    """The prompt for an answer to the last message, with bos where the model expects it.

    With `answer_so_far`, the answer's beginning follows, to be continued.

    Raises:
        ConfigError: The last message is not the user's, or the roles are in an invalid order.
        TokenizerError: The vocabulary cannot represent a message.
    """
    answer = Message(role="assistant", content=answer_so_far)
    (*messages, answer), spelled = _spelled(style, [*ending_with_user(messages), answer], tokenizer)
    begun = [Segment(text=answer.content, learn=True)] if answer_so_far else []
    return _encode([*style.prompt_segments(_for_style(style, messages)), *begun], tokenizer, spelled)[0]


def encode_conversation(
    style: PromptStyle, tokenizer: Tokenizer, messages: Sequence[Message]
) -> tuple[list[int], list[bool]]:
    """`(ids, flags)` of equal length; a flag is true for the assistant's tokens: content and end of turn.

    For every user message, `encode_prompt` of the messages up to it is a prefix of the ids (for a chat template that
    changes earlier turns when later ones follow: only for the last one). Errors are those of `encode_prompt`, except
    that the last message can have any role.
    """
    messages, spelled = _spelled(style, messages, tokenizer)
    return _encode(style.segments(_for_style(style, messages)), tokenizer, spelled)


def _spelled(
    style: PromptStyle, messages: Sequence[Message], tokenizer: Tokenizer
) -> tuple[Sequence[Message], dict[str, str]]:
    """See `spelled_tokens`; the plain style has no markup, so its text is read as the tokenizer reads text."""
    return (messages, {}) if style.name == "plain" else replace_spelled(messages, tokenizer)


def _for_style(style: PromptStyle, messages: Sequence[Message]) -> Sequence[Message]:
    """The conversation; where the style has no system prompt, with that text in the first user message."""
    has_system = any(message.role == "system" and message.content for message in messages)
    return with_system_in_first_turn(messages) if has_system and not style.takes_system() else messages


def naming_the_message(problem: TokenizerError, tokenizer: Tokenizer, messages: Sequence[Message]) -> TokenizerError:
    """The error with the position in the first message that cannot be encoded, not in the text that a style made."""
    for number, message in enumerate(messages, start=1):
        try:
            tokenizer.encode(message.content)
        except TokenizerError as own:
            where = f"Message {number}: " if len(messages) > 1 else ""
            return TokenizerError(where + own.given, needed=own.needed, fix=own.fix)
    return problem


def _encode(
    segments: Iterable[Segment], tokenizer: Tokenizer, spelled: Mapping[str, str]
) -> tuple[list[int], list[bool]]:
    ids: list[int] = []
    flags: list[bool] = []
    for segment in _merged(segments):
        if segment.end_of_text:
            new = [tokenizer.eos_id]
        elif segment.begin_of_text:
            new = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
        else:
            new = []
            for text, plain in parts(segment.text, spelled):
                new += _encode_text(text, tokenizer, continues=bool(ids or new), plain=plain)
        ids += new
        flags += [segment.learn] * len(new)
    if tokenizer.use_bos and tokenizer.bos_id is not None and ids[:1] != [tokenizer.bos_id]:
        ids, flags = [tokenizer.bos_id, *ids], [False, *flags]
    return ids, flags


def _merged(segments: Iterable[Segment]) -> Iterator[Segment]:
    """Adjacent segments of one kind, merged. An empty answer remains, so that it separates its neighbours."""
    waiting: Segment | None = None
    for segment in segments:
        if waiting and not (waiting.is_token or segment.is_token) and waiting.learn == segment.learn:
            waiting = Segment(text=waiting.text + segment.text, learn=segment.learn)
            continue
        if waiting:
            yield waiting
        waiting = segment
    if waiting:
        yield waiting


_EDGE = "\n"


def _encode_text(text: str, tokenizer: Tokenizer, *, continues: bool, plain: bool) -> list[int]:
    """Ids of text; `plain`: special tokens that it spells are not parsed.

    Some tokenizers from elsewhere prepend a space to every text, except after a line break. For these, where the text
    continues another one, a line break is encoded in front and its ids are removed.
    """

    def encode(part: str) -> list[int]:
        return tokenizer.encode_plain_batch([part])[0] if plain else tokenizer.encode(part)

    if not text or not continues or not _adds_a_space(tokenizer):
        return encode(text)
    edge, whole = encode(_EDGE), encode(_EDGE + text)
    return whole[len(edge) :] if whole[: len(edge)] == edge else encode(text)


def _adds_a_space(tokenizer: Tokenizer) -> bool:
    if tokenizer.kind != "foreign":
        return False  # tokenizers trained here reproduce every text exactly
    try:
        return tokenizer.decode(tokenizer.encode("a") * 2) == "a a"
    except TokenizerError:
        return False
