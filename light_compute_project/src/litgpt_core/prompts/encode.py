"""From a formatted conversation to ids, the same way for reading and for learning.

The text is encoded stretch by stretch: what the model reads, what it writes, what it reads next. No token spans an edge
between two, so that what stands before an answer has the same ids whether the answer is there or not.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from litgpt_core.core.errors import TokenizerError
from litgpt_core.prompts.message import Message, Segment
from litgpt_core.prompts.style import PromptStyle, ending_with_user

if TYPE_CHECKING:
    from litgpt_core.tokenizers.base import Tokenizer


def encode_prompt(style: PromptStyle, tokenizer: Tokenizer, messages: Sequence[Message]) -> list[int]:
    """What the model reads before it answers the last message, with bos where the model wants it.

    Raises:
        ConfigError: The last message is not the user's, or the order is wrong.
        TokenizerError: The vocabulary cannot represent a message.
    """
    return _encode(style.segments(ending_with_user(messages)), tokenizer)[0]


def encode_conversation(
    style: PromptStyle, tokenizer: Tokenizer, messages: Sequence[Message]
) -> tuple[list[int], list[bool]]:
    """`(ids, flags)` of equal length; a flag is true where the assistant wrote: content and end of turn.

    For every message of the user, `encode_prompt` of the messages up to it is a prefix of the ids (with a chat template
    that writes earlier turns differently later on: for the last one). Errors as of `encode_prompt`; the last message
    may be anybody's.
    """
    return _encode(style.segments(messages), tokenizer)


def _encode(segments: Iterable[Segment], tokenizer: Tokenizer) -> tuple[list[int], list[bool]]:
    ids: list[int] = []
    flags: list[bool] = []
    for stretch in _stretches(segments):
        if stretch.end_of_text:
            new = [tokenizer.eos_id]
        elif stretch.begin_of_text:
            new = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
        else:
            new = _encode_further(stretch.text, tokenizer) if ids else tokenizer.encode(stretch.text)
        ids += new
        flags += [stretch.learn] * len(new)
    if tokenizer.use_bos and tokenizer.bos_id is not None and ids[:1] != [tokenizer.bos_id]:
        ids, flags = [tokenizer.bos_id, *ids], [False, *flags]
    return ids, flags


def _stretches(segments: Iterable[Segment]) -> Iterator[Segment]:
    """Neighbours of one kind joined. An empty answer stays, so that it parts what stands around it."""
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


def _encode_further(text: str, tokenizer: Tokenizer) -> list[int]:
    """Ids of text that follows other text.

    Some foreign tokenizers put a space before every text they are given. After a line break they do not, so one is
    encoded along and its ids are cut off.
    """
    if not text or not _adds_a_space(tokenizer):
        return tokenizer.encode(text)
    edge, whole = tokenizer.encode(_EDGE), tokenizer.encode(_EDGE + text)
    return whole[len(edge) :] if whole[: len(edge)] == edge else tokenizer.encode(text)


def _adds_a_space(tokenizer: Tokenizer) -> bool:
    if tokenizer.kind != "foreign":
        return False  # those trained here give back every text exactly
    try:
        return tokenizer.decode(tokenizer.encode("a") * 2) == "a a"
    except TokenizerError:
        return False
