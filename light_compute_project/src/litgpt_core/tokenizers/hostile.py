"""Bounds for a `tokenizer.json` of others, which the `tokenizers` library runs as it is.

A few replacements of one character by many, one after the other, turn forty characters into terabytes; an expression
such as `(a+)+$` makes the library's regular expressions give up, which ends in a panic that no `except Exception` sees;
one id of four billion asks for a table of that size.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from litgpt_core.core.errors import TokenizerError

MAX_GAP = 100_000
"""Ids without a token, besides as many as there are tokens."""
MAX_GROWTH = 64
"""How many times longer all replacements together may make a text. Published tokenizers reach 3."""
_MAX_ADDED = 10_000
"""Characters that one step may put before or after a text."""


def refuse_growth(content: Any) -> None:
    """Raise TokenizerError if the replacements of a `tokenizer.json` could make a text much longer.

    Args:
        content: The parsed file; anything but an object passes, because the library refuses it.
    """
    if not isinstance(content, dict):
        return
    for part in ("normalizer", "decoder"):
        growth = 1.0
        for step in _steps(content.get(part)):
            growth *= max(1.0, _growth(step))
            if growth > MAX_GROWTH or len(str(step.get("prepend", ""))) > _MAX_ADDED:
                raise TokenizerError(
                    f"The {part} of tokenizer.json could make a text more than {MAX_GROWTH} times longer.",
                    needed="replacements of about the same length",
                    fix="use another tokenizer",
                )


def _steps(part: Any) -> Iterator[dict[str, Any]]:
    """All steps of a normalizer or decoder, sequences within sequences included (`parse_json` bounds their depth)."""
    if not isinstance(part, dict):
        return
    yield part
    for name in ("normalizers", "decoders"):
        inner = part.get(name)
        for step in inner if isinstance(inner, list) else ():
            yield from _steps(step)


def _growth(step: dict[str, Any]) -> float:
    """By how much a replacement can multiply the length of a text; an expression may match a single character."""
    content, pattern = step.get("content"), step.get("pattern")
    if step.get("type") != "Replace" or not isinstance(content, str):
        return 1.0
    literal = pattern.get("String") if isinstance(pattern, dict) else pattern
    if isinstance(literal, str) and literal:
        return len(content) / len(literal)
    return len(content) + 1.0  # between two characters, an empty match adds its content and leaves both


@contextlib.contextmanager
def panics_as_errors(*, bare: bool = False) -> Iterator[None]:
    """Turn a panic of the library, which is a BaseException, into a TokenizerError.

    Args:
        bare: Also a bare Exception, which is what the library raises for everything else, such as an unknown character
            in a vocabulary without an unknown token.
    """
    try:
        yield
    except BaseException as problem:
        if type(problem).__name__ != "PanicException" and not (bare and type(problem) is Exception):
            raise
        raise TokenizerError(
            f"The tokenizers library failed on this tokenizer.json: {str(problem)[:200]}",
            needed="a tokenizer whose expressions can be evaluated in bounded time",
            fix="use another tokenizer, or report it to the model's author",
        ) from None
