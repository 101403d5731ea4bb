"""Two lists of metrics rows, compared number by number: identical, or where they part first and by how much."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Row = Mapping[str, Any]

QUANTITIES = ("tokens", "lr", "train_loss", "grad_norm", "val_loss")
"""What is compared, in the order in which a step determines them: where two differ at one step, the first is the news.
"""

PLANNED_SPREAD = 0.01
"""By how much the validation losses of several seeds may differ, as a share of their mean: the project's own aim."""


@dataclass(frozen=True, kw_only=True)
class RowDifference:
    """One number that is not the same on both sides."""

    step: int
    quantity: str
    """One of `QUANTITIES`, or `row` where a side has no row of this step, or more than one."""
    one: float | None
    other: float | None

    @property
    def absolute(self) -> float | None:
        """`|one - other|`; None where a side has no number."""
        return None if self.one is None or self.other is None else abs(self.one - self.other)

    @property
    def relative(self) -> float | None:
        """The same as a share of the larger of both; None where a side has no number."""
        if self.one is None or self.other is None:
            return None
        return relative(self.one, self.other)

    @property
    def size(self) -> float:
        """`relative`, infinite where a side has no number."""
        return math.inf if self.relative is None else self.relative


@dataclass(kw_only=True)
class QuantityComparison:
    """One quantity over all steps."""

    values: int = 0
    """Numbers that were compared."""
    differing: int = 0
    """How many of them differ at all."""
    largest: RowDifference | None = None
    """Where the relative difference is largest; None where no number differs."""


@dataclass(frozen=True, kw_only=True)
class TraceComparison:
    """What was found."""

    steps: list[int]
    """Steps of which both sides have exactly one row."""
    quantities: dict[str, QuantityComparison]
    first: RowDifference | None
    """The earliest difference beyond the tolerance; None if there is none."""

    @property
    def values(self) -> int:
        """Numbers that were compared."""
        return sum(quantity.values for quantity in self.quantities.values())

    @property
    def differing(self) -> int:
        """How many of them differ at all."""
        return sum(quantity.differing for quantity in self.quantities.values())

    @property
    def identical(self) -> bool:
        """Whether numbers were compared, and every one is equal, to the last bit."""
        return self.agrees and self.differing == 0

    @property
    def agrees(self) -> bool:
        """Whether numbers were compared, and none differs by more than the tolerance."""
        return self.values > 0 and self.first is None

    @property
    def largest_relative(self) -> float:
        """Over all quantities; infinite where a side lacks a number that the other has."""
        return max((q.largest.size for q in self.quantities.values() if q.largest is not None), default=0.0)


def relative(one: float, other: float) -> float:
    """`|one - other|` as a share of the larger of both; 0 for equal numbers, infinite beside a non-finite one."""
    if one == other or (math.isnan(one) and math.isnan(other)):
        return 0.0
    if not (math.isfinite(one) and math.isfinite(other)):
        return math.inf
    return abs(one - other) / max(abs(one), abs(other))


def compare_rows(
    one: Sequence[Row],
    other: Sequence[Row],
    *,
    up_to: int | None = None,
    within: float = 0.0,
    shared_steps_only: bool = False,
) -> TraceComparison:
    """Compare rows of the same steps.

    Args:
        one: Rows of `metrics.jsonl`, in any order.
        other: The same of the other side.
        up_to: Last step that is looked at; None: the last step that both sides have reached.
        within: Greatest relative difference that passes; 0 demands equality to the last bit.
        shared_steps_only: Pass over steps of which one side has no row.

    Returns:
        `first` is also set where a step has a row on one side only, or two rows on one side.
    """
    last = up_to if up_to is not None else min(max((row["step"] for row in rows), default=0) for rows in (one, other))
    a, b = ({row["step"]: row for row in rows if row["step"] <= last} for rows in (one, other))
    how_often = [Counter(row["step"] for row in rows) for rows in (one, other)]
    shared: list[int] = []
    quantities = {name: QuantityComparison() for name in QUANTITIES}
    first: RowDifference | None = None
    for step in sorted({*a, *b}):
        times = [count[step] for count in how_often]
        if shared_steps_only and 0 in times:
            continue
        if times != [1, 1]:
            first = first or RowDifference(step=step, quantity="row", one=times[0], other=times[1])
            continue
        shared.append(step)
        for name, found in quantities.items():
            pair = RowDifference(step=step, quantity=name, one=a[step].get(name), other=b[step].get(name))
            if pair.one is None and pair.other is None:
                continue
            found.values += 1
            if pair.size == 0.0:
                continue
            found.differing += 1
            if found.largest is None or pair.size > found.largest.size:
                found.largest = pair
            if pair.size > within:
                first = first or pair
    return TraceComparison(steps=shared, quantities=quantities, first=first)


def last_validation(rows: Sequence[Row]) -> tuple[int, float] | None:
    """Step and loss of the last row with a validation; None if there is none."""
    found = [(row["step"], row["val_loss"]) for row in rows if row.get("val_loss") is not None]
    return max(found) if found else None


def spread(values: Sequence[float]) -> float:
    """Largest minus smallest, as a share of the mean."""
    return (max(values) - min(values)) / (sum(values) / len(values))
