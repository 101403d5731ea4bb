"""Patience counts validations that are not better by min_delta, survives a restart, and ends the run once."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from litgpt_core.config.trainer import BatchSettings, HardwareSettings
from litgpt_core.doctor.model_checks import build
from litgpt_core.optim.settings import AdamWSettings
from litgpt_core.training.early_stop import EarlyStop
from litgpt_core.training.hardware import choose_hardware, look_at_machine
from litgpt_core.training.module import TrainingModule


@pytest.fixture(scope="module")
def module() -> TrainingModule:
    settings = HardwareSettings(accelerator="cpu", precision="32-true", compile=False)
    hardware = choose_hardware(settings, look_at_machine(settings.accelerator), total_flops=1.0, width=32)
    return TrainingModule(build("MHA"), optim=AdamWSettings(), batch=BatchSettings(), max_steps=1000, hardware=hardware)


def stopper(patience: int | None, *, min_delta: float = 0.0, closed: bool = False) -> EarlyStop:
    recorder: Any = SimpleNamespace(closed=closed)
    return EarlyStop(recorder=recorder, patience=patience, min_delta=min_delta)


def validate(stop: EarlyStop, module: TrainingModule, losses: list[float], *, fn: str = "fit") -> int | None:
    """The number of the validation after which the run is ended, counted from 1."""
    for number, loss in enumerate(losses, start=1):
        trainer: Any = SimpleNamespace(
            global_step=number, max_steps=100, should_stop=False, state=SimpleNamespace(fn=fn)
        )
        module.eval_loss = loss
        stop.on_validation_end(trainer, module)
        assert trainer.should_stop is (stop.stopped_step is not None)
        if trainer.should_stop:
            return number
    return None


@pytest.mark.parametrize(
    ("patience", "min_delta", "losses", "ended"),
    [
        (2, 0.0, [3.0, 2.0, 2.0, 2.1], 4),
        (2, 0.0, [3.0, 3.1, 2.9, 3.0, 2.8], None),
        (1, 0.0, [3.0, 2.0, 2.0], 3),
        (2, 0.1, [3.0, 2.95, 2.91], 3),
        (3, 0.1, [3.0, 2.95, 2.89, 2.88, 2.87, 2.86], 6),
        (2, 0.0, [3.0, float("nan"), float("nan")], 3),
        (None, 0.0, [1.0] * 50, None),
    ],
)
def test_when_it_ends(
    module: TrainingModule, patience: int | None, min_delta: float, losses: list[float], ended: int | None
) -> None:
    stop = stopper(patience, min_delta=min_delta)
    assert validate(stop, module, losses) == ended == stop.stopped_step


@pytest.mark.parametrize("cut", range(1, 5))
def test_a_restart_changes_nothing(module: TrainingModule, cut: int) -> None:
    losses = [3.0, 2.0, 2.5, 2.4, 2.3]
    undisturbed = validate(stopper(3), module, losses)
    first, second = stopper(3), stopper(3)
    assert validate(first, module, losses[:cut]) is None
    second.load_state_dict(first.state_dict())
    after = validate(second, module, losses[cut:])
    assert undisturbed == 5 == cut + (after or 0)


def test_a_run_that_was_over_stays_over_after_a_restart(module: TrainingModule) -> None:
    over, again = stopper(1), stopper(1)
    validate(over, module, [1.0, 2.0])
    again.load_state_dict(over.state_dict())
    trainer: Any = SimpleNamespace(global_step=2, max_steps=100, should_stop=False)
    again.on_train_start(trainer, module)
    assert trainer.should_stop and again.stopped_step == 2
    more = stopper(5)
    more.load_state_dict(over.state_dict())
    trainer.should_stop = False
    more.on_train_start(trainer, module)
    assert not trainer.should_stop, "more patience continues it"


def test_the_last_step_is_no_early_end(module: TrainingModule) -> None:
    stop = stopper(1)
    stop.load_state_dict({"best": 1.0, "waited": 0})
    module.eval_loss = 2.0
    trainer: Any = SimpleNamespace(global_step=9, max_steps=9, should_stop=False, state=SimpleNamespace(fn="fit"))
    stop.on_validation_end(trainer, module)
    assert stop.waited == 1 and stop.stopped_step is None and not trainer.should_stop


def test_the_closing_validations_do_not_count(module: TrainingModule) -> None:
    assert validate(stopper(1, closed=True), module, [1.0, 2.0, 3.0]) is None
    assert validate(stopper(1), module, [1.0, 2.0, 3.0], fn="validate") is None
