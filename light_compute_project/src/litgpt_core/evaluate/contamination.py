"""Do items stand in the training text? Runs of 13 tokens, looked up in one pass over the training shard.

    item     ... c c c c c c c c c c c c [a a]       every run of 13 tokens that holds a token of the answer
    shard    t t t t t t t t t t t t t t t t ...     the same runs, 2^20 at a time; memory does not grow with the shard

An item is contaminated if one of its runs is in the shard. Items shorter than a run are looked up whole, from
`SHORTEST` tokens on; shorter ones say nothing and count as clean. Runs are compared by a 64-bit hash: among 10^9 tokens
and 10^5 runs a false hit has a probability of about 10^-5. The number 13 is GPT-3's (Brown et al. 2020, appendix C).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from litgpt_core.evaluate.scorer import Continuations, Ids

RUN = 13
SHORTEST = 8
_AT_ONCE = 1 << 20
_FACTOR = np.uint64(0x9E3779B97F4A7C15)
_TABLE_BITS = 22

Hashes = npt.NDArray[np.uint64]
Tokens = npt.NDArray[np.integer]


def clean_items(requests: Sequence[Continuations], train: Tokens, *, special: frozenset[int]) -> list[bool]:
    """For each item whether none of its runs with a token of the right answer is in the training tokens.

    Args:
        requests: Items as ids; the first id is the start id.
        train: (N,) ids of the training shard.
        special: Ids that end documents; runs over an end are nobody's text and not looked up.
    """
    keys = []
    for request in requests:
        ids = np.concatenate([request.context[1:], request.choices[0]])
        keys.append(_keys(ids, answer=len(request.context) - 1, special=special))
    found = _found(keys, train)
    return [not any(int(value) in found[length] for value in values) for length, values in keys]


def overlap(texts: Iterable[Ids], train: Tokens) -> list[float]:
    """For each text (T,) the share of its runs that are in the training tokens; 0 for texts shorter than `SHORTEST`."""
    keys = [_keys(ids, answer=0) for ids in texts]
    found = _found(keys, train)
    return [
        sum(int(value) in found[length] for value in values) / len(values) if len(values) else 0.0
        for length, values in keys
    ]


Keys = tuple[int, Hashes]
"""Length of the runs of one text, and their hashes."""


def _keys(ids: Ids, *, answer: int, special: frozenset[int] = frozenset()) -> Keys:
    """Of the runs that reach to or beyond the place `answer` and hold no special id."""
    length = min(RUN, len(ids))
    if len(ids) < SHORTEST:
        return length, np.zeros(0, dtype=np.uint64)
    first = max(0, answer - length + 1)
    values = _hashes(ids[first:], length)
    if special:
        ends = np.isin(ids[first:], list(special)).astype(np.int64)
        values = values[np.convolve(ends, np.ones(length, dtype=np.int64), mode="valid") == 0]
    return length, values


def _found(keys: Sequence[Keys], train: Tokens) -> dict[int, set[int]]:
    """Length of a run: hashes of that length that are in the training tokens."""
    by_length: dict[int, list[Hashes]] = defaultdict(list)
    for length, values in keys:
        by_length[length].append(values)
    found: dict[int, set[int]] = {}
    for length, parts in by_length.items():
        wanted = np.unique(np.concatenate(parts))
        found[length] = set()
        if not len(wanted):
            continue
        table = np.zeros(1 << _TABLE_BITS, dtype=bool)
        table[_places(wanted)] = True
        for begin in range(0, max(0, len(train) - length + 1), _AT_ONCE):
            hashes = _hashes(np.asarray(train[begin : begin + _AT_ONCE + length - 1]), length)
            likely = hashes[table[_places(hashes)]]
            found[length].update(likely[np.isin(likely, wanted)].tolist())
    return found


def _hashes(tokens: Tokens, length: int) -> Hashes:
    """(N - length + 1,): a polynomial of each run of `length` tokens, modulo 2^64."""
    values = tokens.astype(np.uint64) + np.uint64(1)
    hashes = np.zeros(len(values) - length + 1, dtype=np.uint64)
    for place in range(length):
        hashes *= _FACTOR
        hashes += values[place : place + len(hashes)]
    return hashes


def _places(hashes: Hashes) -> npt.NDArray[np.int64]:
    mixed = (hashes ^ (hashes >> np.uint64(29))) * _FACTOR
    return np.asarray(mixed >> np.uint64(64 - _TABLE_BITS), dtype=np.int64)
