"""Which slot of the KV cache a sequence gets: one that still holds the beginning of its prompt, if there is one.

    turn 1   [system|question|answer]                      its slot is free again, its keys and values are still there
    turn 2   [system|question|answer|question 2]           same slot: only `question 2` is prefilled

Otherwise a slot that holds nothing is taken, else the one that was used least recently.
"""

from __future__ import annotations

from collections.abc import Sequence

LEAST_SHARED = 16
"""Tokens from which on a common beginning decides; every prompt of a model begins with the same few."""


class CacheSlots:
    """The free slots of a cache, and the ids whose keys and values they hold.

    Args:
        n: Number of slots.
        keep: Remember what a slot holds; False: the lowest free slot is taken, and nothing is reused.
    """

    def __init__(self, n: int, *, keep: bool) -> None:
        self._keep = keep
        self._held: dict[int, list[int]] = {slot: [] for slot in range(n)}  # of free slots, least recently used first

    def __len__(self) -> int:
        """Number of free slots."""
        return len(self._held)

    def take(self, ids: Sequence[int]) -> tuple[int, int]:
        """A free slot for a prompt, and how many of its first ids are already in it: always less than all."""
        if not self._keep:
            slot = min(self._held)
            del self._held[slot]
            return slot, 0
        start = list(ids[:LEAST_SHARED])
        found = [slot for slot, held in self._held.items() if held[:LEAST_SHARED] == start]
        shared = {slot: _shared(self._held[slot], ids) for slot in found if len(start) == LEAST_SHARED}
        if shared:
            slot = max(shared, key=lambda slot: shared[slot])
        else:
            slot = next((slot for slot, held in self._held.items() if not held), next(iter(self._held)))
        del self._held[slot]
        return slot, min(shared.get(slot, 0), max(0, len(ids) - 1))

    def give_back(self, slot: int, ids: Sequence[int]) -> None:
        """The slot is free; `ids` are those whose keys and values it holds from position 0 on."""
        self._held[slot] = list(ids) if self._keep else []


def _shared(a: Sequence[int], b: Sequence[int]) -> int:
    """Length of the common beginning."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
