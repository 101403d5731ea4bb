"""Which source each training sample comes from, and which of that source's samples it is: a pure function, O(1).

A cycle of L samples holds exactly q_k samples of source k (largest remainder of the weights). In every cycle the slots
are permuted by a key of (seed, cycle):

    sample g = c L + p       slot = permute(p)       k: the source whose range of slots holds it
                                                     ordinal = samples of k before this cycle + place of the slot

So the shares are exact in every cycle, at every world size, and a resumed run finds sample 10**12 at once. A stage
replaces the weights for a whole number of cycles. From its ordinal on, each source has its own epochs (`dataset`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from litgpt_core.data.order import Ints, epoch_keys, permute

_SEED_OF_SLOTS = 0x5EED


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A number of cycles with the same shares."""

    quotas: tuple[int, ...]
    """Samples of each source in a cycle; they add up to the cycle."""
    cycles: int | None
    """How many; None: to the end."""


def quotas(weights: Sequence[float], *, cycle: int) -> tuple[int, ...]:
    """Whole numbers that add up to `cycle`, in proportion to the weights: what is left over goes to the largest
    remainders, of equal ones to the first.

    Args:
        weights: 0 or more, one above 0.
        cycle: 1 or more.
    """
    total = sum(weights)
    exact = [weight / total * cycle for weight in weights]
    found = [int(share) for share in exact]
    by_remainder = sorted(range(len(exact)), key=lambda k: (found[k] - exact[k], k))
    for k in by_remainder[: cycle - sum(found)]:
        found[k] += 1
    return tuple(found)


class MixtureOrder:
    """The order of a mixture.

    Args:
        stages: At least one; only the last one's `cycles` may be None, which is also how a last one that ends goes on.
        cycle: L.
        seed: Decides the order within each cycle.
    """

    def __init__(self, stages: Sequence[Stage], *, cycle: int, seed: int) -> None:
        self.cycle, self._seed = cycle, seed + _SEED_OF_SLOTS
        self._quotas: Ints = np.array([stage.quotas for stage in stages], dtype=np.int64)  # (S, K)
        assert (self._quotas.sum(axis=1) == cycle).all(), "quotas add up to the cycle"
        lengths = np.array([stage.cycles or 0 for stage in stages[:-1]], dtype=np.int64)
        self._first: Ints = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)  # first cycle of each stage
        before = np.cumsum(lengths[:, None] * self._quotas[:-1], axis=0)
        self._before: Ints = np.concatenate([np.zeros((1, self._quotas.shape[1]), dtype=np.int64), before])  # (S, K)
        self._begins: Ints = np.cumsum(self._quotas, axis=1) - self._quotas  # first slot of each source, (S, K)

    def locate(self, samples: Ints) -> tuple[Ints, Ints]:
        """(source, ordinal within the source) of each sample of the run, both of the shape of `samples`, (n,)."""
        cycles, places = np.divmod(samples, self.cycle)
        slots = permute(places, n=self.cycle, keys=epoch_keys(self._seed, cycles))
        stages = np.searchsorted(self._first, cycles, side="right") - 1
        ends = self._begins[stages] + self._quotas[stages]  # (n, K)
        sources = (slots[:, None] >= ends).sum(axis=1)
        inside = slots - self._begins[stages, sources]
        done = self._before[stages, sources] + (cycles - self._first[stages]) * self._quotas[stages, sources]
        return sources.astype(np.int64), done + inside

    def counts(self, samples: int) -> Ints:
        """Samples of each source among the first `samples`, shape (K,)."""
        cycles, rest = divmod(samples, self.cycle)
        stage = int(np.searchsorted(self._first, cycles, side="right")) - 1
        whole = self._before[stage] + (cycles - self._first[stage]) * self._quotas[stage]
        sources, _ = self.locate(np.arange(cycles * self.cycle, cycles * self.cycle + rest, dtype=np.int64))
        return np.asarray(whole + np.bincount(sources, minlength=len(whole)), dtype=np.int64)
