"""What a training says: an estimate after the first steps, the time left, and what to type next."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from litgpt_core.config.compose import load
from litgpt_core.core.text import two_digits
from litgpt_core.training.progress import LONG_S, Pace, ProgressDisplay, about, estimate_lines, row_text
from litgpt_core.training.results import next_commands, utilisation


def test_the_pace_leaves_out_the_first_step_and_counts_each_step_once() -> None:
    pace = Pace()
    assert pace.seconds_left(10) is None
    for step, now in ((0, 0.0), (1, 60.0), (1, 60.5), (2, 62.0), (3, 64.0), (3, 64.5)):
        pace.passed(step, now=now)
    assert pace.steps == 2
    assert pace.seconds_left(10) == pytest.approx(7 * 2.0)
    assert pace.seconds_left(3) == 0


def test_a_resumed_run_counts_from_where_it_goes_on() -> None:
    pace = Pace()
    for step in range(100, 105):
        pace.passed(step, now=10.0 * step)
    assert (pace.steps, pace.seconds_left(110)) == (3, 60)


def test_a_long_run_is_offered_a_shorter_one() -> None:
    assert estimate_lines(LONG_S - 60, shorter="baseline_short") == [
        "the training will take about 7 min on this machine"
    ]
    told = estimate_lines(LONG_S + 60, shorter="baseline_short")
    assert told[0] == "the training will take about 9 min on this machine"
    assert told[1].endswith("lcp train +experiment=baseline_short")
    assert len(estimate_lines(LONG_S + 60, shorter=None)) == 1


def test_a_run_that_turns_out_long_is_offered_a_shorter_one_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    display = ProgressDisplay(SimpleNamespace(rows=[]), max_steps=320, shorter="baseline_short")  # type: ignore[arg-type]
    trainer, module = SimpleNamespace(global_step=0, is_global_zero=True), SimpleNamespace(device=torch.device("cpu"))
    display._first_row = 0
    now = 0.0
    for step in range(120):  # 1.2 s each at first, then 4 s
        trainer.global_step, now = step, now + (1.2 if step < 8 else 4)
        monkeypatch.setattr("time.monotonic", lambda at=now: at)
        display.on_train_batch_start(trainer, module, None, step)  # type: ignore[arg-type]
    told = [record.getMessage() for record in caplog.records]
    assert [line.split(" about ")[0] for line in told[:2]] == ["the training will take"] * 2
    assert "baseline_short" in told[2] and len(told) == 3


def test_the_shorter_experiment_exists_and_is_the_same_recipe() -> None:
    whole = load(["+experiment=baseline"])
    name = whole.trainer.stop.shorter_experiment
    short = load([f"+experiment={name}"])
    assert short.run.name == name and short.trainer.stop.max_steps < 0.7 * whole.trainer.stop.max_steps
    assert (short.model, short.optim, short.data, short.tokenizer) == (
        whole.model,
        whole.optim,
        whole.data,
        whole.tokenizer,
    )
    assert short.trainer.stop.shorter_experiment is None


@pytest.mark.parametrize(
    ("seconds", "text"), [(3, "3 s"), (44, "40 s"), (100, "2 min"), (560, "9 min"), (9000, "2.5 h")]
)
def test_estimates_are_rounded(seconds: float, text: str) -> None:
    assert about(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(8174.3, "8,200"), (99.6, "100"), (3.04, "3.0"), (0.1387, "0.14"), (0, "0"), (-52_700, "-53,000")],
)
def test_noisy_numbers_have_two_digits(value: float, text: str) -> None:
    assert two_digits(value) == text


def test_a_row_says_the_time_left_but_not_at_the_end() -> None:
    row = {"step": 5, "train_loss": 4.5, "val_loss": None, "val_bpb": None, "tokens_per_s": 1234.5, "elapsed_s": 61.2}
    assert (
        row_text(row, max_steps=10, seconds_left=300.0)
        == "step  5/10  loss 4.5000  1,200 tok/s  61 s  about 5 min left"
    )
    assert "left" not in row_text(row, max_steps=5, seconds_left=0.0)
    assert "left" not in row_text(row, max_steps=10)


def test_what_to_type_next_can_be_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = Path("runs/mine")
    offline = folder / "wandb" / "offline-run-20260101_000000-abc"
    offline.mkdir(parents=True)
    found = dict(next_commands(folder, {"sample_prompts": ["def "]}))
    assert [command.split()[3] for what, command in found.items() if " lcp " in command] == [
        *("generate", "chat", "serve", "runs"),
    ]
    assert found["talk to it"].endswith("lcp chat mine")
    assert found["upload to W&B"] == f"uv run wandb sync {offline.as_posix()}"
    elsewhere = dict(next_commands(tmp_path / "other" / "mine", {}))
    assert elsewhere["talk to it"].endswith(f"chat {(tmp_path / 'other' / 'mine').as_posix()}")
    assert "upload to W&B" not in elsewhere and "--dir" in elsewhere["all runs"]


def test_mfu_is_a_data_sheets_word() -> None:
    assert utilisation({"mfu": 0.63, "peak_flops_source": "measured bf16 matrix product"}) == (
        "63% of this CPU's measured matmul rate"
    )
    assert utilisation({"mfu": 0.41, "peak_flops_source": "data sheet, H100, dense bf16"}) == "MFU 41%"
