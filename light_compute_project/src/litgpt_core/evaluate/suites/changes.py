"""A change of one place in a held-out document, and the minimal pair that it makes: the text, and the text with it."""

from __future__ import annotations

import io
from dataclasses import dataclass

from litgpt_core.data.document import Document
from litgpt_core.evaluate.items import Item

CONTEXT = 400
"""Characters of context at most."""
AFTER = 20
"""Characters of the line behind the change at most."""


@dataclass(frozen=True)
class Change:
    """Replace text[start:end]."""

    kind: str
    start: int
    end: int
    wrong: tuple[str, ...]
    """Any of these; the first that has as many tokens is taken."""
    direction: str = ""
    """What is right in some items of a kind and wrong in others."""


def pair(document: Document, change: Change) -> Item:
    """The minimal pair: the same context in whole lines, both sides up to the line's end."""
    text = document.text
    first = max(0, change.start - CONTEXT)
    first = text.find("\n", first, change.start) + 1 if first else 0  # whole lines; -1 + 1: the file's beginning
    line_end = text.find("\n", change.end)
    rest = text[change.end : min(line_end if line_end >= 0 else len(text), change.end + AFTER)]
    return Item(
        kind=change.kind,
        cluster=document.name,
        context=text[first : change.start],
        choices=(text[change.start : change.end] + rest, *(wrong + rest for wrong in change.wrong)),
        keep=2,
    )


def last_word(kind: str, document: Document, passage: str, choices: tuple[str, ...], *, keep: int) -> Item:
    """The words that may follow a passage, the first of them right; the space before a word belongs to its token."""
    kept = passage.removesuffix(" ")
    blank = passage[len(kept) :]
    return Item(
        kind=kind, cluster=document.name, context=kept, choices=tuple(blank + choice for choice in choices), keep=keep
    )


def line_starts(text: str) -> list[int]:
    """Offset of the first character of each line, as Python counts lines."""
    starts, place = [0], 0
    for line in io.StringIO(text):
        place += len(line)
        starts.append(place)
    return starts
