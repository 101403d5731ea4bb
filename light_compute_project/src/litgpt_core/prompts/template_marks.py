"""Characters that a conversation does not hold, to find places in what a chat template made of it."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass

from litgpt_core.core.errors import ConfigError

_PRIVATE_USE = (range(0xF0000, 0xFFFFE), range(0x100000, 0x10FFFE), range(0xE000, 0xF900))
_PRIVATE_CHARACTER = re.compile("[\ue000-\uf8ff\U000f0000-\U0010ffff]")


@dataclass(frozen=True)
class Marks:
    """Characters that occur nowhere in a conversation and its template: for bos, for eos, and two for each answer."""

    characters: str

    @property
    def bos(self) -> str:
        """Stands for the begin-of-sequence token."""
        return self.characters[0]

    @property
    def eos(self) -> str:
        """Stands for the end-of-sequence token."""
        return self.characters[1]

    def of_turn(self, number: int) -> tuple[str, str]:
        """The characters before and after an answer."""
        return self.characters[2 + 2 * number], self.characters[3 + 2 * number]

    def without(self, tagged: str) -> str:
        """The text without the marks of answers."""
        return tagged.translate(dict.fromkeys(map(ord, self.characters[2:])))

    def places(self, tagged: str) -> dict[str, list[int]]:
        """The places of each answer's mark in the text without them."""
        found: dict[str, list[int]] = {mark: [] for mark in self.characters[2:]}
        n_before = 0
        for match in _PRIVATE_CHARACTER.finditer(tagged):
            if match[0] in found:
                found[match[0]].append(match.start() - n_before)
                n_before += 1
        return found

    def instead_of(self, other: Marks, text: str) -> str:
        """`text` with these characters for bos and eos instead of the other ones."""
        return text.translate({ord(other.bos): self.bos, ord(other.eos): self.eos})


def unused_marks(texts: Sequence[str], n: int) -> Marks:
    """`n` private-use characters that occur in none of the texts. Raises ConfigError if there are too few."""
    used = set[str]().union(*texts)
    free = (chr(code) for block in _PRIVATE_USE for code in block if chr(code) not in used)
    characters = "".join(itertools.islice(free, n))
    if len(characters) < n:
        raise ConfigError(
            "The conversation has too many turns, or holds too many different private-use characters.",
            needed="a shorter conversation",
        )
    return Marks(characters)
