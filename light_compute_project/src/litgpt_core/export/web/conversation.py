"""A prompt style as the parts that a page needs: what is before and after each thing that a user says.

Conversations of three turns are formatted with marks for what is said; a style whose second and third turn have equal
surroundings can be continued without the style.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from litgpt_core.core.errors import LightComputeError
from litgpt_core.prompts import Message, PromptStyle, Segment
from litgpt_core.tokenizers import Tokenizer

USER = "\ue000"
"""Stands for what the user says."""
_ANSWER = "\ue001"


def conversation_of(style: PromptStyle | None, tokenizer: Tokenizer) -> dict[str, Any] | None:
    """The chat format; None for a base model, or a style that is not of that kind."""
    if style is None or style.name == "plain":
        return None
    said = [Message(role=role, content=text) for role, text in (("user", USER), ("assistant", _ANSWER)) * 2]  # type: ignore[arg-type]
    try:
        first = list(_parts(style.prompt_segments(said[:1]), tokenizer))
        turns = [list(_parts(style.prompt_segments(said[:count] + said[:1]), tokenizer)) for count in (2, 4)]
    except LightComputeError:
        return None
    following = [_after_last_answer(each) for each in turns]
    if following[0] is None or following[0] != following[1]:
        return None
    stops = [text for text in style.stop_strings() if text]
    return {
        "first": first,
        "next": following[0],
        "stopIds": sorted(style.stop_tokens(tokenizer)),
        "stopStrings": stops,
    }


def _parts(segments: Sequence[Segment], tokenizer: Tokenizer) -> Iterator[dict[str, Any]]:
    """Texts that are encoded on their own, as `prompts.encode` does, and ids."""
    text, learn = "", False
    for segment in segments:
        if text and (segment.is_token or segment.learn != learn):
            yield {"text": text}
            text = ""
        if segment.end_of_text:
            yield {"id": tokenizer.eos_id}
        elif segment.begin_of_text:
            yield from [] if tokenizer.bos_id is None else [{"id": tokenizer.bos_id}]
        else:
            text += segment.text
        learn = segment.learn
    if text:
        yield {"text": text}


def _after_last_answer(parts: Sequence[dict[str, Any]]) -> list[dict[str, Any]] | None:
    """What follows the last answer; None if there is no answer, or it does not stand at a beginning."""
    place = max((number for number, part in enumerate(parts) if _ANSWER in part.get("text", "")), default=None)
    if place is None:
        return None
    rest = parts[place]["text"].rpartition(_ANSWER)[2]
    return [*([{"text": rest}] if rest else []), *parts[place + 1 :]]
