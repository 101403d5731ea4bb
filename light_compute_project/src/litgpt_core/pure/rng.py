"""torch's random numbers without torch: the Mersenne Twister, seeded and read as `torch.Generator` does it.

Python's `random` is the same generator (MT19937, Matsumoto & Nishimura 1998). It seeds it from a whole list of numbers,
torch from one; and it makes a float of the upper bits of two draws, torch of the lower 53 bits of both.
"""

from __future__ import annotations

import random


class Rng:
    """Numbers in [0, 1): those of `torch.rand(..., dtype=torch.float64)` after `manual_seed(seed)`; None: any."""

    def __init__(self, seed: int | None) -> None:
        self._random = random.Random()
        if seed is not None:
            state = [seed & 0xFFFFFFFF]
            for number in range(1, 624):
                before = state[-1]
                state.append((1812433253 * (before ^ before >> 30) + number) & 0xFFFFFFFF)
            self._random.setstate((3, (*state, 624), None))

    def random(self) -> float:
        """The next number."""
        high, low = self._random.getrandbits(32), self._random.getrandbits(32)
        return ((high << 32 | low) & (1 << 53) - 1) * 2.0**-53
