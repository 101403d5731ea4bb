"""The printable characters that represent the 256 byte values in byte-level `tokenizer.json` files (GPT-2's table).

Bytes that are visible characters in Latin-1 represent themselves; the other 68 take U+0100, U+0101, ... in order.
"""

from __future__ import annotations

_VISIBLE = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
_HIDDEN = [value for value in range(256) if value not in _VISIBLE]

BYTE_TO_CHARACTER: list[str] = [
    chr(value) if value in _VISIBLE else chr(0x100 + _HIDDEN.index(value)) for value in range(256)
]
"""Entry b is the character that represents byte b."""

CHARACTER_TO_BYTE: dict[str, int] = {character: value for value, character in enumerate(BYTE_TO_CHARACTER)}


def characters_to_bytes(token: str) -> bytes | None:
    """The bytes that a byte-level token represents, or None if it has a character outside the alphabet."""
    values = [CHARACTER_TO_BYTE.get(character) for character in token]
    known = [value for value in values if value is not None]
    return bytes(known) if len(known) == len(values) else None
