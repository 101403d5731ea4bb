"""The visiting order: a bijection for every size, equal to a slow scalar reference, different per seed and epoch."""

from __future__ import annotations

import numpy as np
import pytest

from litgpt_core.data.order import ROUNDS, epoch_keys, permute

MASK = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15


def slow_mix64(word: int) -> int:
    word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & MASK
    return word ^ (word >> 31)


def slow_permute(position: int, *, n: int, key: int) -> int:
    """One position with Python integers, written from the description and not from the vectorised code."""
    if n == 1:
        return 0
    bits = 1
    while 4**bits < n:
        bits += 1
    word = position
    while True:
        left, right = word >> bits, word & (2**bits - 1)
        for i in range(ROUNDS):
            noise = slow_mix64((right + (key ^ (((i + 1) * GOLDEN) & MASK))) & MASK)
            left, right = right, left ^ (noise & (2**bits - 1))
        word = (left << bits) | right
        if word < n:
            return word


def order(n: int, *, seed: int, epoch: int) -> np.ndarray:
    return permute(np.arange(n), n=n, keys=epoch_keys(seed, np.full(n, epoch)))


@pytest.mark.parametrize("n", [*range(1, 70), 127, 128, 129, 1000, 4095, 4096, 4097, 65_537, 100_003])
def test_every_size_is_a_bijection(n: int) -> None:
    assert np.array_equal(np.sort(order(n, seed=7, epoch=3)), np.arange(n))


@pytest.mark.parametrize("n", [1, 2, 3, 5, 16, 17, 64, 65, 1000, 10**6, 10**12 + 39])
def test_equals_the_slow_reference(n: int) -> None:
    positions = np.unique(np.linspace(0, n - 1, 50).astype(np.int64))
    keys = epoch_keys(11, positions % 3)
    expected = [slow_permute(int(p), n=n, key=int(k)) for p, k in zip(positions, keys, strict=True)]
    assert permute(positions, n=n, keys=keys).tolist() == expected


def test_keys_of_seeds_and_epochs_never_meet() -> None:
    keys = np.concatenate([epoch_keys(seed, np.arange(500)) for seed in range(50)])
    assert len(np.unique(keys)) == 25_000


def test_epochs_and_seeds_give_unrelated_orders() -> None:
    n = 5000
    base = order(n, seed=1, epoch=0)
    for other in (order(n, seed=1, epoch=1), order(n, seed=2, epoch=0), np.arange(n)):
        assert abs(np.corrcoef(base, other)[0, 1]) < 0.06  # 4 standard deviations of an unrelated order
        assert (base == other).sum() < 10


def test_neighbours_are_scattered() -> None:
    steps = np.abs(np.diff(order(10_000, seed=5, epoch=0)))
    assert abs(steps.mean() - 10_000 / 3) < 200  # the mean distance of two random places is n / 3
