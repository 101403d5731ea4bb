"""Schedules against values computed by hand."""

from __future__ import annotations

import math

import pytest

from litgpt_core.errors import ConfigError
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
