"""Which conversations share a row: a pure function of their lengths. No ids, no order of training.

    row 0  | conversation 4            | conversation 0   |.|
    row 1  | conversation 2   | conversation 1 | 3  |.......|      . = padding

Best fit, longest first (ties by index): each conversation goes into the row with the least room that still takes it.
Those of a row do not see each other (`model.segments`), so who shares a row with whom means nothing to what is learnt.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence


def pack(lengths: Sequence[int], *, capacity: int) -> list[list[int]]:
    """Rows of indices into `lengths`, each row's lengths adding up to at most `capacity`; every index exactly once.

    Args:
        lengths: From 1 to `capacity`.
        capacity: Places of a row.
    """
    rows: list[list[int]] = []
    rooms: list[int] = []  # distinct room sizes that some row has left, sorted
    rows_with: dict[int, list[int]] = {}
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        length = lengths[index]
        assert 1 <= length <= capacity, f"length {length} of {capacity}"
        place = bisect.bisect_left(rooms, length)
        if place < len(rooms):
            room = rooms[place]
            row = rows_with[room].pop()
            if not rows_with[room]:
                del rows_with[room], rooms[place]
            rows[row].append(index)
        else:
            room, row = capacity, len(rows)
            rows.append([index])
        left = room - length
        if left:
            if left not in rows_with:
                bisect.insort(rooms, left)
                rows_with[left] = []
            rows_with[left].append(row)
    return rows
