"""Messages that spell special tokens of the tokenizer, such as `<|im_end|>`: they stay text.

A style's own text needs its special tokens parsed, and its segments hold markup and messages together. So each spelling
in a message is replaced by a character that no message holds, the style formats the conversation, and that character is
encoded as the spelling without parsing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from litgpt_core.prompts.message import Message

if TYPE_CHECKING:
    from litgpt_core.tokenizers.base import Tokenizer

_FIRST, _LAST = 0xF0000, 0xFFFFD
"""Supplementary private use area A."""


def replace_spelled(messages: Sequence[Message], tokenizer: Tokenizer) -> tuple[Sequence[Message], dict[str, str]]:
    """(messages, {character: spelling}): every spelling of a special token replaced by a character of its own."""
    contents = [message.content for message in messages]
    spelled = sorted(
        (name for name in tokenizer.special_names() if any(name in content for content in contents)),
        key=lambda name: (-len(name), name),
    )
    if not spelled:
        return messages, {}
    used = set("".join(contents))
    free = (chr(point) for point in range(_FIRST, _LAST) if chr(point) not in used)
    character_of = dict(zip(spelled, free, strict=False))
    pattern = re.compile("|".join(map(re.escape, spelled)))
    replaced = [
        Message(role=message.role, content=pattern.sub(lambda found: character_of[found[0]], message.content))
        for message in messages
    ]
    return replaced, {character: name for name, character in character_of.items()}


def parts(text: str, spelled: Mapping[str, str]) -> list[tuple[str, bool]]:
    """`text` as (part, whether it is to be encoded without parsing special tokens), empty parts left out."""
    if not spelled:
        return [(text, False)]
    found = re.split(f"([{''.join(spelled)}])", text)
    return [(spelled.get(part, part), part in spelled) for part in found if part]
