"""What is trained for repeats, seeds and threads, and what their reports say, without training anything."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from litgpt_core.audit import variations
from litgpt_core.audit.recorded import RecordedRun
from litgpt_core.config.compose import load

Plain = dict[str, Any]
Loss = Callable[[Plain], float]


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> Callable[[Loss], dict[str, Plain]]:
    """Replace training by rows whose loss is a function of the config; returns the configs by run name."""

    def replace(loss: Loss) -> dict[str, Plain]:
        configs: dict[str, Plain] = {}

        class Folder:
            def train(self, plain: Plain, *, name: str) -> RecordedRun:
                configs[name] = plain
                last = plain["trainer"].get("stop_after") or plain["trainer"]["max_steps"]
                row = {"tokens": 1, "lr": 0.1, "grad_norm": 1.0, "train_loss": loss(plain), "val_loss": loss(plain)}
                return RecordedRun(Path(name), plain, {"device": "cpu"}, {}, [{"step": last, **row}], [])

        @contextmanager
        def folder() -> Iterator[Folder]:
            yield Folder()

        monkeypatch.setattr(variations, "temporary_training", folder)
        return configs

    return replace


@pytest.fixture(scope="module")
def plain() -> Plain:
    return load(["+experiment=smoke"]).plain


def test_a_repeat_trains_the_same_config_twice_with_a_row_for_every_step(plain: Plain, trained: Any) -> None:
    configs = trained(lambda _: 2.0)
    report = variations.repeat(plain, name="smoke", steps=7)
    assert list(configs) == ["first", "second"] and configs["first"] == configs["second"]
    trainer = configs["first"]["trainer"]
    assert (trainer["log_interval"], trainer["eval_interval"], trainer["stop_after"]) == (1, 7, 7)
    assert trainer["max_steps"] == plain["trainer"]["max_steps"], "the schedule stays that of the whole run"
    assert report.passed and report.identical and "identical: all 5 numbers of 1 steps" in report.verdict


def test_seeds_change_the_seed_alone_and_are_judged_by_their_spread(plain: Plain, trained: Any) -> None:
    configs = trained(lambda config: 2.0 + 0.01 * config["seed"])
    report = variations.over_seeds(plain, [1, 2, 3], name="smoke", steps=10, within=0.01)
    assert [config["seed"] for config in configs.values()] == [1, 2, 3]
    assert len({str({**config, "seed": 0}) for config in configs.values()}) == 1
    assert configs["seed-1"]["trainer"]["log_interval"] == plain["trainer"]["log_interval"]
    assert report.passed and report.numbers["spread"] == pytest.approx(0.02 / 2.02)
    assert not variations.over_seeds(plain, [1, 9], name="smoke", steps=10, within=0.01).passed


def test_threads_are_compared_with_the_first_number(plain: Plain, trained: Any) -> None:
    configs = trained(lambda config: 2.0 + (0.1 if config["trainer"]["threads"] == 4 else 0.0))
    report = variations.over_threads(plain, [1, 2, 4], name="smoke", steps=5)
    assert [config["trainer"]["threads"] for config in configs.values()] == [1, 2, 4]
    assert "threads-2: identical to threads-1" in report.verdict and "threads-4: the first difference" in report.verdict
    assert not report.passed and not report.identical and report.numbers["against"] == "threads-1"


def test_no_more_steps_than_the_config_has_are_trained(plain: Plain, trained: Any) -> None:
    configs = trained(lambda _: 2.0)
    variations.repeat(plain, name="smoke", steps=10**6)
    assert "stop_after" not in configs["first"]["trainer"]
