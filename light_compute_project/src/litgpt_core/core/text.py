"""Words and numbers in messages: the nearest valid name, counts with their noun, sizes in bytes; quoting for Hydra."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable

_LISTED = 30
_VISIBLE = (
    {code: 0x2400 + code for code in range(32) if chr(code) not in "\n\t"}
    | {127: 0x2421}
    | dict.fromkeys(range(128, 160), 0xFFFD)
)


def visible(text: str) -> str:
    """Control characters but line ends and tabs as visible symbols: text of others must not control a terminal."""
    return text.translate(_VISIBLE)


def close_names(name: str, candidates: Iterable[str], *, n: int = 3, cutoff: float = 0.6) -> list[str]:
    """The candidates most similar to `name`, best first; upper and lower case are the same.

    Args:
        name: What was given.
        candidates: Valid names.
        n: At most so many.
        cutoff: Least similarity, from 0 to 1.
    """
    known = {each.lower(): each for each in sorted(set(candidates), reverse=True)}
    return [known[match] for match in difflib.get_close_matches(name.lower(), sorted(known), n=n, cutoff=cutoff)]


def nearest(name: str, candidates: Iterable[str]) -> str:
    """A clause for an error message: the closest valid names, or all of them if they are few; empty otherwise."""
    known = sorted(set(candidates))
    if close := close_names(name, known):
        return "; did you mean " + " or ".join(close) + "?"
    return f"; there are: {', '.join(known)}" if len(known) <= _LISTED else ""


def count(number: int, noun: str, plural: str | None = None) -> str:
    """`1 thread`, `2 threads`, `1,024 bytes`."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def byte_size(size: float) -> str:
    """`640 bytes`, `1.2 kB`, `35 MB`, `4.1 GB`: powers of 1,000, two significant digits from kB on."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= factor:
            value = size / factor
            return f"{value:.1f} {unit}" if value < 10 else f"{value:.0f} {unit}"
    return count(int(size), "byte")


def two_digits(value: float) -> str:
    """A measured number with two significant digits, as many as noise leaves: `8,200`, `0.14`.

    >>> two_digits(8174.3), two_digits(95.8), two_digits(3.04)
    ('8,200', '96', '3.0')
    """
    if not value or not math.isfinite(value):
        return f"{value:g}"
    places = 1 - math.floor(math.log10(abs(value)))
    rounded = round(value, places)
    places = 1 - math.floor(math.log10(abs(rounded)))
    return f"{rounded:,.{max(0, places)}f}"


def hydra_quoted(text: str) -> str:
    """A string in quotes, as Hydra's grammar of overrides reads it back unchanged."""
    return "'" + re.sub(r"(\\+)(?=$|')", r"\1\1", text).replace("'", "\\'") + "'"
