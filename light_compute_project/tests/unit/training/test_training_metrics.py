"""The recorder on a stand-in for the Trainer: rows, clocks and state, without a run."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from litgpt_core.core.errors import LightComputeError
from litgpt_core.training import metrics
from litgpt_core.training.metrics import MetricsRecorder
from litgpt_core.training.module import TrainingModule


class Clock:
    """Time that passes when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(metrics, "time", clock)
    return clock


def recorder(path: Path, **changes: Any) -> MetricsRecorder:
    settings = {"tokens_per_step": 100, "val_tokens_per_byte": 0.5, "flops_per_token": 10.0, "peak_flops": lambda: 1e4}
    return MetricsRecorder(path, **{**settings, "log_interval": 2, "max_steps": 5, **changes})


def module(loss: float = 2.0) -> TrainingModule:
    built = TrainingModule.__new__(TrainingModule)
    torch.nn.Module.__init__(built)
    built.step_loss, built.grad_norm = torch.tensor(loss), torch.tensor(0.5)
    built.learning_rate, built.eval_loss = 1e-3, 1.0
    return built


def trainer(step: int = 0) -> Any:
    strategy = SimpleNamespace(broadcast=lambda value: value)
    return SimpleNamespace(global_step=step, is_global_zero=True, world_size=1, strategy=strategy, loggers=[])


def step(rec: MetricsRecorder, tr: Any, mod: TrainingModule, clock: Clock, *, seconds: float, save: float = 0) -> None:
    rec.on_train_batch_start(tr, mod, None, 0)
    if save:
        clock.now += save
        rec.pause()
    clock.now += seconds
    tr.global_step += 1
    rec.on_train_batch_end(tr, mod, None, None, 0)


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_rates_leave_out_the_first_step_saving_and_validation(tmp_path: Path, clock: Clock) -> None:
    path, tr, mod = tmp_path / "metrics.jsonl", trainer(), module()
    rec = recorder(path, log_interval=1)
    rec.on_train_start(tr, mod)
    step(rec, tr, mod, clock, seconds=30)  # compiles
    step(rec, tr, mod, clock, seconds=2)
    step(rec, tr, mod, clock, seconds=2, save=7)
    clock.now += 50
    rec.on_validation_end(tr, mod)
    step(rec, tr, mod, clock, seconds=2)
    rec.flush(tr)
    assert [row["tokens_per_s"] for row in rows(path)] == [None, 50.0, 50.0, 50.0]
    assert rec.usual_tokens_per_s() == 50.0 and rec.compile_s == pytest.approx(28.0)
    assert rows(path)[1]["mfu"] == pytest.approx(50 * 10 / 1e4)
    assert rows(path)[-1]["elapsed_s"] == pytest.approx(30 + 2 + 2 + 7 + 50 + 2)


class Device:
    """A GPU in miniature: a step only launches work, which is done when somebody waits for the device."""

    def __init__(self, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
        self.waiting = 0.0
        settle = MetricsRecorder.settle

        def waits(rec: MetricsRecorder, tr: Any) -> None:
            clock.now, self.waiting = clock.now + self.waiting, 0.0
            settle(rec, tr)

        monkeypatch.setattr(MetricsRecorder, "settle", waits)


@pytest.mark.parametrize("interruption", ["validation", "saving"])
def test_work_that_the_device_still_does_is_training_time(
    interruption: str, tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Validation and saving fall on steps without a row: 4 steps of 2 s are 50 tokens/s all the same."""
    device, path, tr, mod = Device(clock, monkeypatch), tmp_path / "metrics.jsonl", trainer(), module()
    rec = recorder(path, log_interval=10, max_steps=5)
    rec.on_train_start(tr, mod)
    for number in range(5):
        rec.on_train_batch_start(tr, mod, None, 0)
        if number == 3 and interruption == "saving":  # as the saver does, when the next step is about to begin
            rec.wait_for_device(tr)
            clock.now += 40
            rec.pause()
        device.waiting += 2
        tr.global_step += 1
        rec.on_train_batch_end(tr, mod, None, None, 0)
        if number == 2 and interruption == "validation":
            rec.on_validation_start(tr, mod)
            clock.now += 40
            rec.on_validation_end(tr, mod)
        if number == 0:
            rec.wait_for_device(tr)  # the first step is not counted
    rec.flush(tr)
    assert {row["tokens_per_s"] for row in rows(path) if row["tokens_per_s"]} == {50.0}


def test_a_row_averages_the_steps_since_the_last_and_carries_its_validation(tmp_path: Path, clock: Clock) -> None:
    path, tr = tmp_path / "metrics.jsonl", trainer()
    rec = recorder(path)
    rec.on_train_start(tr, module())
    for loss in (1.0, 2.0, 4.0, 8.0):
        step(rec, tr, module(loss), clock, seconds=1)
    rec.on_validation_end(tr, module())
    rec.flush(tr)
    assert [(r["step"], r["train_loss"], r["val_loss"]) for r in rows(path)] == [(2, 1.5, None), (4, 6.0, 1.0)]
    assert rows(path)[1]["val_bpb"] == pytest.approx(0.5 / 0.6931471805599453)
    assert rows(path)[1]["tokens"] == 400


def test_a_validation_off_the_log_interval_gets_a_row_the_closing_one_does_not(tmp_path: Path, clock: Clock) -> None:
    path, tr = tmp_path / "metrics.jsonl", trainer()
    rec = recorder(path)
    rec.on_train_start(tr, module())
    step(rec, tr, module(), clock, seconds=1)
    rec.on_validation_end(tr, module())
    assert rec.last_step_is_validated
    rec.flush(tr)
    rec.closed = True
    rec.on_validation_end(tr, module(9.0))
    rec.flush(tr)
    assert [(r["step"], r["val_loss"]) for r in rows(path)] == [(1, 1.0)]


def test_state_in_the_middle_of_an_interval_gives_the_undisturbed_row(tmp_path: Path, clock: Clock) -> None:
    first, second = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    whole, tr = recorder(first, log_interval=4), trainer()
    whole.on_train_start(tr, module())
    for loss in (1.1, 2.3, 3.7):
        step(whole, tr, module(loss), clock, seconds=1)
    resumed, later = recorder(second, log_interval=4), trainer(3)
    whole.settle(tr)  # as the saver does before it saves
    resumed.load_state_dict(whole.state_dict())
    resumed.on_train_start(later, module())
    for rec, t in ((whole, tr), (resumed, later)):
        step(rec, t, module(5.9), clock, seconds=1)
        rec.flush(t)
    assert rows(first)[0]["train_loss"] == rows(second)[0]["train_loss"]


def test_rows_after_the_checkpoint_are_dropped_and_time_never_runs_backwards(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "metrics.jsonl"
    old = [{"step": s, "val_loss": None, "elapsed_s": s * 10.0} for s in (2, 4)]
    path.write_text("".join(json.dumps(row) + "\n" for row in old) + '{"step": 6, "cut')
    rec, tr = recorder(path), trainer(2)
    rec.on_train_start(tr, module())
    assert [row["step"] for row in rows(path)] == [2]
    for _ in range(2):
        step(rec, tr, module(), clock, seconds=1)
    rec.flush(tr)
    assert [row["step"] for row in rows(path)] == [2, 4] and rows(path)[1]["elapsed_s"] == pytest.approx(22.0)


def test_a_loss_that_is_not_a_number_ends_the_run_with_what_to_type(tmp_path: Path, clock: Clock) -> None:
    rec, tr = recorder(tmp_path / "metrics.jsonl"), trainer()
    rec.on_train_start(tr, module())
    step(rec, tr, module(), clock, seconds=1)
    with pytest.raises(LightComputeError, match=r"optim\.lr"):
        step(rec, tr, module(float("nan")), clock, seconds=1)


def test_accumulated_micro_batches_are_one_step(tmp_path: Path, clock: Clock) -> None:
    rec, tr = recorder(tmp_path / "metrics.jsonl", log_interval=1), trainer()
    rec.on_train_start(tr, module())
    for micro in range(4):
        rec.on_train_batch_start(tr, module(), None, micro)
        tr.global_step = (micro + 1) // 2
        rec.on_train_batch_end(tr, module(), None, None, micro)
    rec.flush(tr)
    assert [row["step"] for row in rows(tmp_path / "metrics.jsonl")] == [1, 2]
