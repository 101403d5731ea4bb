"""Schedules against values computed by hand."""

from __future__ import annotations

import math

import pytest

from litgpt_core.core.errors import ConfigError
from litgpt_core.optim.schedule import learning_rate_factor
from litgpt_core.optim.settings import ScheduleSettings


def factor(step: int, **settings: object) -> float:
    return learning_rate_factor(step, ScheduleSettings(**settings), max_steps=100)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["cosine", "linear", "wsd", "constant"])
def test_warm_up_is_linear_and_reaches_one(kind: str) -> None:
    assert [factor(s, kind=kind, lr_warmup_steps=4) for s in range(4)] == [0.25, 0.5, 0.75, 1.0]


@pytest.mark.parametrize("kind", ["cosine", "linear", "wsd"])
def test_the_last_step_is_at_the_floor(kind: str) -> None:
    assert factor(99, kind=kind, lr_warmup_steps=10, min_lr_fraction=0.1) == pytest.approx(0.1)


BY_HAND: dict[str, dict[int, float]] = {
    # 100 steps, 10 of warm-up, floor 0.1: step s is the (s - 9)th of the 90 that remain
    "cosine": {0: 0.1, 4: 0.5, 9: 1.0, 39: 0.775, 54: 0.55, 69: 0.325, 99: 0.1, 150: 0.1},  # cos 60, 90, 120 degrees
    "linear": {0: 0.1, 4: 0.5, 9: 1.0, 39: 0.7, 54: 0.55, 69: 0.4, 99: 0.1, 150: 0.1},
    "wsd": {0: 0.1, 9: 1.0, 39: 1.0, 79: 1.0, 80: 0.955, 84: 0.775, 89: 0.55, 99: 0.1, 150: 0.1},  # the last 20 of 100
    "constant": {0: 0.1, 4: 0.5, 9: 1.0, 39: 1.0, 99: 1.0, 150: 1.0},
}


@pytest.mark.parametrize("kind", BY_HAND)
def test_values_by_hand(kind: str) -> None:
    found = {step: factor(step, kind=kind, lr_warmup_steps=10, min_lr_fraction=0.1) for step in BY_HAND[kind]}
    assert found == pytest.approx(BY_HAND[kind])


def test_without_warm_up_the_decay_starts_with_the_first_step() -> None:
    options = {"lr_warmup_steps": 0, "min_lr_fraction": 0.0}
    assert factor(0, kind="linear", **options) == pytest.approx(0.99)
    assert factor(0, kind="cosine", **options) == pytest.approx(0.5 * (1 + math.cos(math.pi / 100)))
    assert [factor(0, kind=kind, **options) for kind in ("wsd", "constant")] == [1.0, 1.0]


def test_a_decay_over_all_steps_is_the_linear_schedule() -> None:
    for step in (0, 19, 20, 50, 99):
        wsd = factor(step, kind="wsd", lr_warmup_steps=20, decay_fraction=1.0, min_lr_fraction=0.0)
        assert wsd == factor(step, kind="linear", lr_warmup_steps=20, min_lr_fraction=0.0)


def test_a_warm_up_that_reaches_into_the_decay_comes_first() -> None:
    """The decay would start at step 20 and the warm-up lasts until 50: then 50 steps are left to fall in."""
    options = {"kind": "wsd", "lr_warmup_steps": 50, "decay_fraction": 0.8, "min_lr_fraction": 0.0}
    assert [factor(step, **options) for step in (24, 49, 74, 99)] == pytest.approx([0.5, 1.0, 0.5, 0.0])


def test_a_warm_up_longer_than_the_run_never_arrives() -> None:
    assert factor(99, kind="cosine", lr_warmup_steps=400) == 0.25


def test_it_is_a_function_of_the_step_alone() -> None:
    """Asked backwards or twice, it answers the same: nothing is counted, so nothing is lost by a restart."""
    for kind in BY_HAND:
        forwards = [factor(step, kind=kind) for step in range(100)]
        assert [factor(step, kind=kind) for step in reversed(range(100))] == forwards[::-1]


def test_cosine_and_linear_midpoints() -> None:
    # after 20 warm-up steps 80 remain; step 59 is the 40th of them: exactly half-way
    assert factor(59, kind="linear", lr_warmup_steps=20, min_lr_fraction=0.0) == pytest.approx(0.5)
    assert factor(59, kind="cosine", lr_warmup_steps=20, min_lr_fraction=0.2) == pytest.approx(0.6)
    assert factor(39, kind="cosine", lr_warmup_steps=20, min_lr_fraction=0.0) == pytest.approx(
        0.5 * (1 + math.cos(math.pi / 4))
    )


def test_wsd_is_flat_until_its_decay() -> None:
    settings = {"kind": "wsd", "lr_warmup_steps": 5, "decay_fraction": 0.2, "min_lr_fraction": 0.0}
    assert {factor(s, **settings) for s in range(5, 80)} == {1.0}
    assert factor(89, **settings) == pytest.approx(0.5)


def test_factor_never_rises_after_warm_up() -> None:
    for kind in ("cosine", "linear", "wsd", "constant"):
        values = [factor(s, kind=kind, lr_warmup_steps=10) for s in range(10, 130)]
        assert values == sorted(values, reverse=True)


def test_all_bad_values_are_reported_together() -> None:
    with pytest.raises(ConfigError) as caught:
        ScheduleSettings(lr_warmup_steps=-1, min_lr_fraction=2.0, decay_fraction=0.0)
    message = str(caught.value)
    assert all(name in message for name in ("lr_warmup_steps=-1", "min_lr_fraction=2.0", "decay_fraction=0.0"))
