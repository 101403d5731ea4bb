"""Curves of suites: when they are scored, what is written, and what a resumed run keeps."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import get_args

import pytest

from litgpt_core.config.compose import load
from litgpt_core.config.train_config import SuiteCurveSettings, SuiteName
from litgpt_core.core.errors import ConfigError
from litgpt_core.evaluate.suites.catalogue import SUITES
from litgpt_core.training.module import TrainingModule
from litgpt_core.training.suite_curves import SuiteCurves


class Dashboard:
    def __init__(self) -> None:
        self.rows: list[tuple[int, dict[str, float]]] = []

    def log_metrics(self, values: dict[str, float], *, step: int) -> None:
        self.rows.append((step, values))


@pytest.fixture
def trained(tmp_path: Path) -> Callable[..., tuple[SuiteCurves, Dashboard, list[int]]]:
    """`trained(first, last)`: the hooks of a run from one step to another, two micro-batches each."""

    def run(first: int, last: int) -> tuple[SuiteCurves, Dashboard, list[int]]:
        scored: list[int] = []
        dashboard = Dashboard()
        trainer = SimpleNamespace(
            global_step=first, is_global_zero=True, accumulate_grad_batches=2, loggers=[dashboard]
        )

        def measure(model: object) -> dict[str, float]:
            scored.append(trainer.global_step)
            return {"cloze_accuracy": trainer.global_step / 100}

        module = TrainingModule.__new__(TrainingModule)
        recorder = SimpleNamespace(pause=lambda: None)
        path = tmp_path / "evaluation" / "curve.jsonl"
        curves = SuiteCurves(path, measure=measure, interval=4, recorder=recorder)
        type(module).network  # noqa: B018
        module.__dict__["_flat"] = None
        module.__dict__["_modules"] = {"model": object()}
        curves.on_train_start(trainer, module)
        for step in range(first, last):
            trainer.global_step = step
            for micro in range(2):
                curves.on_train_batch_start(trainer, module, None, 2 * step + micro)
        trainer.global_step = last
        curves.on_train_end(trainer, module)
        return curves, dashboard, scored

    return run


def test_suites_are_scored_at_the_interval_and_at_the_end(trained) -> None:
    curves, dashboard, scored = trained(0, 10)
    assert scored == [4, 8, 10]
    rows = [json.loads(line) for line in curves.path.read_text().splitlines()]
    assert rows == [{"step": step, "cloze_accuracy": step / 100} for step in (4, 8, 10)]
    assert dashboard.rows[0] == (4, {"suites/cloze_accuracy": 0.04})


def test_a_resumed_run_repeats_no_row(trained) -> None:
    curves, _, _ = trained(0, 10)
    _, _, scored = trained(8, 12)
    assert scored == [12]
    assert [json.loads(line)["step"] for line in curves.path.read_text().splitlines()] == [4, 8, 12]


def test_the_config_knows_the_suites() -> None:
    assert set(get_args(SuiteName)) == set(SUITES)
    assert load(["+experiment=smoke"]).evaluation == SuiteCurveSettings()
    settings = load(["+experiment=smoke", "evaluation.suites=[cloze]", "evaluation.interval=7"]).evaluation
    assert (settings.suites, settings.interval) == (["cloze"], 7)
    with pytest.raises(ConfigError, match="needed 'python_pairs'"):
        load(["+experiment=smoke", "evaluation.suites=[clooze]"])


def test_a_sharded_model_is_refused(tmp_path: Path) -> None:
    plan = SimpleNamespace(resolved=SimpleNamespace(shards_model=True))
    with pytest.raises(ConfigError, match="sharded"):
        SuiteCurves.of(plan, measure_of=lambda plan: lambda model: {}, recorder=SimpleNamespace())
