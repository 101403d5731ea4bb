"""One context with several continuations as one row of ids: a tree of depth two.

ids         c c c s a a b b        choices  s a a A and s b b B, whose last ids are only ever predicted
segments   -1-1-1-1 1 1 2 2        each sees the context, what all choices begin with, and itself (`model/mask.py`)
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from litgpt_core.evaluate.scorer import Continuations, Ids

SHARED = -1
PADDING = 1 << 30
"""Segment of what is behind the end of a row."""


class Tree(NamedTuple):
    """A context and some of its choices."""

    ids: Ids
    """(T,)"""
    segments: Ids
    """(T,)"""
    context: int
    """Ids of the context, at least 1."""
    common: int
    """Ids that all choices begin with; each has at least one more."""
    choices: tuple[Ids, ...]

    @property
    def branches(self) -> bool:
        """Whether some ids do not see all before them."""
        return len(self.ids) > self.context + self.common

    def places(self) -> Ids:
        """For every id of every choice, in order, the place that predicts it, counted from the context's last id."""
        found, begin = [], self.common + 1
        for choice in self.choices:
            own = len(choice) - self.common - 1
            found += [np.arange(self.common + 1), np.arange(begin, begin + own)]
            begin += own
        return np.concatenate(found)


def trees_of(request: Continuations, *, block_size: int) -> Iterator[Tree]:
    """The choices of one request in order, as many in a row as the window holds; at least one.

    Args:
        request: A context whose longest choice, without its last id, fits behind it.
        block_size: Most ids of a row.
    """
    begin, size = 0, len(request.context)
    for number, choice in enumerate(request.choices):
        if number > begin and size + len(choice) - 1 > block_size:
            yield _tree(request.context, request.choices[begin:number])
            begin, size = number, len(request.context)
        size += len(choice) - 1
    yield _tree(request.context, request.choices[begin:])


def _tree(context: Ids, choices: tuple[Ids, ...]) -> Tree:
    shortest = min(map(len, choices)) - 1
    differ = np.any([choice[:shortest] != choices[0][:shortest] for choice in choices], axis=0)
    common = int(differ.argmax()) if differ.any() else shortest
    parts = [np.concatenate([context, choices[0][:common]]), *(choice[common:-1] for choice in choices)]
    numbers = np.repeat([SHARED, *range(1, len(choices) + 1)], [len(part) for part in parts])
    return Tree(np.concatenate(parts), numbers.astype(np.int64), len(context), common, choices)
