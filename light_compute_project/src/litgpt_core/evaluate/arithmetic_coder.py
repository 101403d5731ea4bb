"""Arithmetic coding of symbols by given frequencies: a range coder on Python integers, exact and the same everywhere.

    low, range                  the interval that stands for everything so far, scaled by 2^64
    symbol (start, size)        range //= TOTAL;  low += start * range;  range *= size
    range < 2^48                the topmost byte is written; a carry out of `low` is added to the bytes before it

Frequencies are parts of TOTAL = 2^32, so a symbol of probability p costs -log2 p bits up to 2^-16. Martin (1979),
"Range encoding"; the carry is propagated as in Schindler's coder.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

TOTAL_BITS = 32
TOTAL = 1 << TOTAL_BITS
_FULL, _LEAST = 1 << 64, 1 << 48
_MASK = _FULL - 1


def cumulative_frequencies(probabilities: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """(V,) probabilities -> (V + 1,) rising integers from 0 to TOTAL; every symbol has at least 1.

    A pure function of the values, which the encoder and the decoder must both have bit by bit.
    """
    size = len(probabilities)
    sizes = np.floor(probabilities * ((TOTAL - size) / probabilities.sum())).astype(np.int64) + 1
    sizes[int(sizes.argmax())] += TOTAL - int(sizes.sum())
    return np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(sizes)])


class ArithmeticEncoder:
    """Symbols to bytes."""

    def __init__(self) -> None:
        self._low, self._range = 0, _FULL
        self._bytes = bytearray()

    def encode(self, start: int, size: int) -> None:
        """Add a symbol whose part of TOTAL is [start, start + size)."""
        step = self._range >> TOTAL_BITS
        self._low += start * step
        self._range = size * step
        if self._low >= _FULL:
            self._low &= _MASK
            self._carry()
        while self._range < _LEAST:
            self._bytes.append(self._low >> 56)
            self._low = (self._low << 8) & _MASK
            self._range <<= 8

    def finish(self) -> bytes:
        """All bytes; as few at the end as name a number of the last interval (a decoder reads zeros after them)."""
        for count in range(9):
            unit = 1 << (64 - 8 * count)
            number = -(-self._low // unit) * unit  # the first multiple from `low` on
            if number < self._low + self._range:
                if number >= _FULL:
                    number &= _MASK
                    self._carry()
                self._bytes += number.to_bytes(8, "big")[:count]
                break
        return bytes(self._bytes)

    def _carry(self) -> None:
        place = len(self._bytes) - 1
        while self._bytes[place] == 255:
            self._bytes[place] = 0
            place -= 1
        self._bytes[place] += 1


class ArithmeticDecoder:
    """The same symbols from the bytes, given the same frequencies."""

    def __init__(self, data: bytes) -> None:
        self._data, self._place, self._range = data, 8, _FULL
        self._code = int.from_bytes(data[:8].ljust(8, b"\0"), "big")  # relative to `low`

    def decode(self, cumulative: npt.NDArray[np.int64]) -> int:
        """The next symbol: index of its part in `cumulative` (V + 1,)."""
        step = self._range >> TOTAL_BITS
        value = min(self._code // step, TOTAL - 1)
        symbol = int(np.searchsorted(cumulative, value, side="right")) - 1
        start, end = int(cumulative[symbol]), int(cumulative[symbol + 1])
        self._code -= start * step
        self._range = (end - start) * step
        while self._range < _LEAST:
            following = self._data[self._place] if self._place < len(self._data) else 0
            self._code = ((self._code << 8) | following) & _MASK
            self._place += 1
            self._range <<= 8
        return symbol
