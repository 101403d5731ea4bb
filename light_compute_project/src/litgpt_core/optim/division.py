"""How many of Muon's matrices a process takes together where several divide them: `shared_matrices` does, the planner
counts. No torch here.
"""

from __future__ import annotations

NUMBERS_AT_ONCE = 2**25
"""Matrices that one process takes together have at most so many numbers, or are a single one."""


def matrices_at_once(rows: int, columns: int, *, count: int, processes: int) -> int:
    """How many matrices of one size a process takes together, of `count` that all share."""
    return min(max(1, NUMBERS_AT_ONCE // (rows * columns)), -(-count // processes))
