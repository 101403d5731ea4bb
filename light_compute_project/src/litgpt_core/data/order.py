"""The order in which training windows are visited: a pure function of (seed, epoch, index), without state.

Not here: files and tensors (`dataset`). Any position of any epoch costs the same few operations, so a run resumes at
sample 10**12 as fast as at 0, and the order does not depend on how many processes share the work.

The permutation is a balanced Feistel network over the next power of four, iterated until the result is in range ("cycle
walking": Black and Rogaway 2002, "Ciphers with Arbitrary Finite Domains", section 3). The round function is
the finaliser of SplitMix64 (Steele, Lea and Flood 2014). It needs to mix well, not to be secure.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]

ROUNDS = 6
_GOLDEN = 0x9E3779B97F4A7C15
_MASK64 = (1 << 64) - 1


def mix64(words: Words) -> Words:
    """SplitMix64's finaliser: a bijection of 64-bit words whose output looks random. Any shape in, same shape out."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


def epoch_keys(seed: int, epochs: Ints) -> Words:
    """One 64-bit key per entry of `epochs`, shape kept; a different, unrelated one for every (seed, epoch)."""
    base = mix64(np.array([(seed * _GOLDEN + 1) & _MASK64], dtype=np.uint64))
    return mix64(base ^ mix64(epochs.astype(np.uint64) + np.uint64(_GOLDEN)))


def permute(positions: Ints, *, n: int, keys: Words) -> Ints:
    """Where each position in [0, n) goes under the keyed permutation of range(n).

    Args:
        positions: Values in [0, n), any shape.
        n: Size of the range, 1 or more, below 2**62.
        keys: One key per position (same shape): one call may mix positions of different epochs.

    Returns:
        Values in [0, n), same shape; for one key, a bijection.
    """
    if n == 1:
        return np.zeros_like(positions)
    half_bits = max(1, ((n - 1).bit_length() + 1) // 2)
    out = _feistel(positions.astype(np.uint64), half_bits, keys)
    limit = np.uint64(n)
    outside = np.flatnonzero(out >= limit)  # walk on until every value is inside: under 4 steps on average
    flat, flat_keys = out.reshape(-1), keys.reshape(-1)
    while outside.size:
        walked = _feistel(flat[outside], half_bits, flat_keys[outside])
        flat[outside] = walked
        outside = outside[walked >= limit]
    return flat.reshape(positions.shape).astype(np.int64)


def permute_blocks(positions: Ints, *, n: int, keys: Words, block: int, group: int) -> Ints:
    """As `permute`, in an order that reads neighbours together: blocks of `block` neighbours come in a seeded order,
    and are mixed within groups of `group` successive ones. So at most `block * group` neighbours are needed at a time.

    What is left behind the last entire block comes last, mixed within itself.

    Args:
        positions, n, keys: As for `permute`; `positions` and `keys` have one dimension.
        block: Neighbours that stay in one block, 1 or more.
        group: Blocks that are mixed with each other, 1 or more.
    """
    blocks = n // block
    out = np.empty_like(positions)
    rest = positions >= blocks * block
    if rest.any():
        first = blocks * block
        out[rest] = first + permute(positions[rest] - first, n=n - first, keys=mix64(keys[rest] + np.uint64(_GOLDEN)))
    groups = positions // (block * group)
    entire = groups < blocks // group
    for chosen, size in ((entire & ~rest, group), (~entire & ~rest, blocks % group)):
        if not chosen.any():
            continue
        number, own = groups[chosen], keys[chosen]
        inside = positions[chosen] - number * block * group
        mixed = permute(inside, n=size * block, keys=mix64(own ^ mix64(number.astype(np.uint64) + np.uint64(1))))
        slot = number * group + mixed // block
        out[chosen] = permute(slot, n=blocks, keys=own) * block + mixed % block
    return out


def _feistel(words: Words, half_bits: int, keys: Words) -> Words:
    """A keyed bijection of [0, 4**half_bits): each round swaps the halves and masks one with a hash of the other."""
    shift, mask = np.uint64(half_bits), np.uint64((1 << half_bits) - 1)
    left, right = words >> shift, words & mask
    for i in range(ROUNDS):
        round_constant = np.uint64(((i + 1) * _GOLDEN) & _MASK64)
        left, right = right, left ^ (mix64(right + (keys ^ round_constant)) & mask)
    return (left << shift) | right
