"""Durations are read as people mean them, and a run's limits count what every session used."""

from __future__ import annotations

import pytest

from litgpt_core.config.compose import load
from litgpt_core.config.trainer import BudgetSettings
from litgpt_core.core.durations import duration_text, seconds_of
from litgpt_core.core.errors import ConfigError
from litgpt_core.training.budget import Budget, Meter, Used


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("90m", 5400),
        ("2h30m", 9000),
        ("1.5h", 5400),
        ("1d12h", 129_600),
        ("45s", 45),
        ("1d2h3m4s", 93_784),
        (" 2H ", 7200),
        ("11:30:00", 41_400),
        ("00:11:30:00", 41_400),
        ("01:02:30:00", 95_400),
        ("1-02:30:00", 95_400),
        ("3600", 3600),
        (3600, 3600),
        (0.5, 0.5),
    ],
)
def test_what_people_write(written: str | float, seconds: float) -> None:
    assert seconds_of(written) == seconds


@pytest.mark.parametrize("written", ["", "1:30", "ninety", "30m2h", "2 h", "0m", 0, -5, "-5m", "1:75:00", float("inf")])
def test_what_nobody_can_be_sure_of_is_refused_with_examples(written: str | float) -> None:
    with pytest.raises(ConfigError, match="2h30m"):
        seconds_of(written)


def test_a_clock_that_yaml_took_for_a_number_is_refused() -> None:
    """YAML 1.1 reads a bare 1:02:30:00 as 225000; three fields come out as the seconds that are meant."""
    assert seconds_of(60**3 - 1) == 215_999
    with pytest.raises(ConfigError, match="225000s"):
        seconds_of(225_000)
    assert seconds_of("225000s") == 225_000


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "0 s"), (45, "45 s"), (60, "1 min"), (5400, "1 h 30 min"), (93_784, "1 d 2 h"), (3601, "1 h")],
)
def test_durations_are_shown_by_their_two_largest_units(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


def used(*, run_s: float = 0.0, session_s: float = 0.0, dollars: float = 0.0) -> Used:
    return Used(run_s=run_s, session_s=session_s, dollars=dollars)


def test_without_limits_nothing_ends() -> None:
    budget = Budget(cost_per_hour=2.0, devices=8)
    assert budget.exhausted(used(run_s=1e9, session_s=1e9, dollars=1e9)) is None
    assert budget.seconds_left(used()) is None


@pytest.mark.parametrize(
    ("limits", "amount", "setting"),
    [
        ({"max_time": "90m"}, used(run_s=5400, session_s=10), "trainer.max_time=90m"),
        ({"max_session_time": 60}, used(run_s=5400, session_s=60), "trainer.max_session_time=60"),
        ({"max_cost": 20.0, "cost_per_hour": 2.5}, used(dollars=20.0), "trainer.max_cost=20"),
    ],
)
def test_each_limit_ends_at_its_own_amount_and_names_itself(
    limits: dict[str, float], amount: Used, setting: str
) -> None:
    budget = Budget(**limits)
    end = budget.exhausted(amount)
    assert end is not None and end.reason.startswith(setting) and "run.resume=true" in end.fix
    less = used(run_s=amount.run_s - 1, session_s=amount.session_s - 1, dollars=amount.dollars - 0.01)
    assert budget.exhausted(less) is None
    assert budget.exhausted(less, reserve_s=30.0) == budget.exhausted(less, reserve_s=20.0) is not None


def test_the_nearest_limit_counts() -> None:
    budget = Budget(max_time="10h", max_session_time="2h", max_cost=8.0, cost_per_hour=1.0, devices=8)
    fresh = used()
    assert budget.seconds_left(fresh) == 3600, "8 dollars an hour"
    end = budget.exhausted(fresh, reserve_s=9e9)
    assert end is not None and "max_cost" in end.reason
    assert budget.seconds_left(used(run_s=36_000.5, dollars=0.0)) == -0.5


def test_a_meter_adds_up_sessions_with_different_devices_and_prices() -> None:
    now = 100.0
    first = Meter(Budget(cost_per_hour=3.6, devices=2), started=100.0, clock=lambda: now)
    now = 1100.0
    assert (first.used.run_s, first.used.dollars) == (1000.0, pytest.approx(2.0))
    state = first.state_dict()
    assert all(isinstance(value, float) for value in state.values())

    now = 7.0
    second = Meter(Budget(max_cost=2.5, cost_per_hour=7.2, devices=1), started=7.0, clock=lambda: now)
    second.load_state_dict(state)
    assert second.used.dollars == pytest.approx(2.0) and second.exhausted() is None
    now = 7.0 + 250.0
    assert second.used.run_s == 1250.0 and second.used.session_s == 250.0
    assert second.exhausted() is not None


def test_the_trainer_section_says_the_limits() -> None:
    settings = BudgetSettings(max_time="2h", max_session_time=600, max_cost=5, cost_per_hour=0.5)
    budget = Budget.of(settings, devices=16)
    assert budget.dollars(3600) == 8.0
    assert budget.seconds_left(used()) == 600
    assert Budget.of(BudgetSettings(), devices=1).seconds_left(used()) is None


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"max_time": "soon"}, r"trainer\.max_time='soon'"),
        ({"max_time": 0}, r"trainer\.max_time=0"),
        ({"max_session_time": "1:30"}, r"trainer\.max_session_time='1:30'"),
        ({"max_cost": 0.0, "cost_per_hour": 1.0}, r"trainer\.max_cost=0\.0"),
        ({"cost_per_hour": -1.0}, r"trainer\.cost_per_hour=-1\.0"),
        ({"max_cost": 5.0}, r"trainer\.cost_per_hour=\.\.\."),
    ],
)
def test_settings_refuse_what_cannot_limit(given: dict[str, float], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load([f"trainer.{name}={value}" for name, value in given.items()])


def test_all_wrong_limits_are_named_at_once() -> None:
    with pytest.raises(ConfigError) as error:
        load(["trainer.max_time=soon", "trainer.max_session_time=0", "trainer.max_steps=0"])
    assert all(name in str(error.value) for name in ("max_time", "max_session_time", "max_steps"))
