"""Packing: which conversations share a row, as a pure function of their lengths. No ids, no training order.

    row 0  | conversation 4            | conversation 0   |.|
    row 1  | conversation 2   | conversation 1 | 3  |.......|      . = padding

Best-fit decreasing (ties by index): each conversation, longest first, goes into the row with the least space left that
it fits into. Conversations of one row do not attend to each other (`model.mask`), so packing does not change what
each of them contributes to the loss.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence


def pack(lengths: Sequence[int], *, capacity: int) -> list[list[int]]:
    """Rows of indices into `lengths`; the lengths of a row add up to at most `capacity`, and every index occurs once.

    Args:
        lengths: From 1 to `capacity`.
        capacity: Token positions of a row.
    """
    rows: list[list[int]] = []
    spaces: list[int] = []  # distinct amounts of space that some row has left, sorted
    rows_with: dict[int, list[int]] = {}
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        length = lengths[index]
        assert 1 <= length <= capacity, f"length {length} of {capacity}"
        index_of_space = bisect.bisect_left(spaces, length)
        if index_of_space < len(spaces):
            space = spaces[index_of_space]
            row = rows_with[space].pop()
            if not rows_with[space]:
                del rows_with[space], spaces[index_of_space]
            rows[row].append(index)
        else:
            space, row = capacity, len(rows)
            rows.append([index])
        left = space - length
        if left:
            if left not in rows_with:
                bisect.insort(spaces, left)
                rows_with[left] = []
            rows_with[left].append(row)
    return rows
