from __future__ import annotations

import math
from typing import Any

import pytest

from litgpt_core.audit.trace import compare_rows, last_validation, relative, spread


def row(step: int, **changes: Any) -> dict[str, Any]:
    usual = {"tokens": step * 64, "lr": 0.01, "train_loss": 5.0 - step / 10, "grad_norm": 1.0, "val_loss": None}
    return {"step": step, **usual, "tokens_per_s": 100.0 + step, "elapsed_s": step * 1.0, **changes}


ROWS = [row(step) for step in (5, 10, 15, 20)]


def test_equal_numbers_are_identical_whatever_the_clock_says() -> None:
    found = compare_rows(ROWS, [{**each, "tokens_per_s": 1.0, "elapsed_s": 9.0, "mfu": 0.1} for each in ROWS])
    assert found.identical and found.agrees and found.first is None
    assert found.steps == [5, 10, 15, 20] and found.values == 16, "four quantities; no step was validated"
    assert found.quantities["val_loss"].values == 0 and found.largest_relative == 0.0


def test_the_first_difference_is_named_with_both_values() -> None:
    other = [ROWS[0], row(10, grad_norm=1.5, train_loss=4.0 + 1e-12), row(15, lr=0.02), ROWS[3]]
    found = compare_rows(ROWS, other)
    assert found.first is not None and (found.first.step, found.first.quantity) == (10, "train_loss")
    assert (found.first.one, found.first.other) == (4.0, 4.0 + 1e-12)
    assert found.first.absolute == pytest.approx(1e-12, rel=1e-3) and not found.identical
    assert found.differing == 3
    worst = found.quantities["lr"].largest
    assert worst is not None and worst.step == 15 and worst.relative == pytest.approx(0.5)


def test_of_one_step_the_cause_comes_before_the_effect() -> None:
    found = compare_rows(ROWS, [row(5, val_loss=3.0, grad_norm=2.0, lr=0.5, tokens=1), *ROWS[1:]])
    assert found.first is not None and found.first.quantity == "tokens"


def test_the_last_bit_counts() -> None:
    other = [*ROWS[:3], row(20, train_loss=math.nextafter(3.0, 4.0))]
    assert not compare_rows(ROWS, other).identical
    assert compare_rows(ROWS, other, within=1e-9).agrees
    assert not compare_rows(ROWS, other, within=1e-9).identical, "close is not identical"


def test_a_tolerance_passes_over_small_differences_only() -> None:
    other = [row(5, lr=0.01 * (1 + 1e-4)), row(10, lr=0.011), *ROWS[2:]]
    found = compare_rows(ROWS, other, within=1e-3)
    assert found.first is not None and found.first.step == 10
    assert found.quantities["lr"].differing == 2


def test_a_missing_row_is_a_difference() -> None:
    found = compare_rows(ROWS, [ROWS[0], *ROWS[2:]])
    assert found.first is not None and (found.first.step, found.first.quantity) == (10, "row")
    assert (found.first.one, found.first.other) == (1, 0)
    assert compare_rows(ROWS, [ROWS[0], *ROWS[2:]], shared_steps_only=True).identical


def test_a_row_that_stands_twice_is_a_difference() -> None:
    found = compare_rows([*ROWS, ROWS[1]], ROWS)
    assert found.first is not None and (found.first.step, found.first.one, found.first.other) == (10, 2, 1)


def test_a_number_that_one_side_lacks_is_a_difference() -> None:
    found = compare_rows([row(5, val_loss=3.0)], [row(5)])
    assert found.first is not None and found.first.quantity == "val_loss"
    assert found.first.absolute is None and found.first.relative is None and found.largest_relative == math.inf
    assert not compare_rows([row(5, val_loss=3.0)], [row(5)], within=0.5).agrees


def test_only_steps_up_to_the_shorter_side_or_the_limit_are_compared() -> None:
    assert compare_rows(ROWS, ROWS[:2]).steps == [5, 10]
    assert compare_rows(ROWS, [ROWS[0], row(10, lr=9.0)], up_to=9).identical
    assert compare_rows(ROWS, ROWS[:2], up_to=20).first is not None, "a replay that ended early is not identical"


def test_nothing_to_compare_is_not_identical() -> None:
    for other in ([], ROWS):
        found = compare_rows([], other)
        assert not found.identical and not found.agrees


@pytest.mark.parametrize(
    ("one", "other", "size"),
    [
        (2.0, 2.0, 0.0),
        (math.nan, math.nan, 0.0),
        (math.nan, 1.0, math.inf),
        (math.inf, 1.0, math.inf),
        (-1.0, 1.0, 2.0),
    ],
)
def test_relative_size(one: float, other: float, size: float) -> None:
    assert relative(one, other) == size


def test_spread_is_a_share_of_the_mean() -> None:
    assert spread([2.9, 3.0, 3.1]) == pytest.approx(0.2 / 3.0)


def test_the_last_validation_is_found() -> None:
    assert last_validation(ROWS) is None
    assert last_validation([row(5, val_loss=9.0), row(10, val_loss=4.0), row(15)]) == (10, 4.0)
