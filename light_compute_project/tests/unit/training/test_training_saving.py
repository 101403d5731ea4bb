"""What the saver does with a signal that comes when no step is left to begin."""

from __future__ import annotations

import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from litgpt_core.config.compose import load
from litgpt_core.config.trainer import CheckpointSettings
from litgpt_core.core.errors import ConfigError, Interrupted
from litgpt_core.distributed.process_group import ProcessGroup
from litgpt_core.distributed.world import World
from litgpt_core.training.budget import Budget, Meter
from litgpt_core.training.run_folder import RunFolder, claim_run, refuse_another_run
from litgpt_core.training.saving import CheckpointSaver
from litgpt_core.training.stop import StopRequest


def saver(tmp_path: Path, stop: StopRequest, **changes: Any) -> CheckpointSaver:
    return CheckpointSaver(
        RunFolder(tmp_path),
        recorder=SimpleNamespace(),  # type: ignore[arg-type]
        stop=stop,
        group=ProcessGroup(World()),
        meter=Meter(changes.pop("budget", Budget()), started=0.0, clock=lambda: 100.0),
        seed=1,
        save_interval=10,
        keep=1,
        **changes,
    )


def at(step: int) -> Any:
    return SimpleNamespace(global_step=step, accumulate_grad_batches=1)


def test_a_signal_in_the_last_step_ends_the_run_after_its_checkpoint(tmp_path: Path) -> None:
    stop = StopRequest()
    mine = saver(tmp_path, stop)
    mine.on_train_end(at(0), None)  # type: ignore[arg-type]
    stop.signal = signal.SIGTERM
    with pytest.raises(Interrupted, match="stopped by SIGTERM after step 0; everything is saved") as caught:
        mine.on_train_end(at(0), None)  # type: ignore[arg-type]
    assert caught.value.exit_code == 143 and not caught.value.silent


def test_a_used_up_budget_ends_between_steps_with_exit_code_0(tmp_path: Path) -> None:
    mine = saver(tmp_path, StopRequest(), budget=Budget(max_time="90s"))
    mine._saved_step = 5
    with pytest.raises(Interrupted, match=r"trainer\.max_time=90s is used up") as caught:
        mine.on_train_batch_start(at(5), None, None, 0)  # type: ignore[arg-type]
    assert caught.value.exit_code == 0 and "larger trainer.max_time" in str(caught.value)


def test_a_checkpoint_is_due_after_the_time_of_save_every_whatever_the_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, saved = [1000.0], []
    monkeypatch.setattr("litgpt_core.training.saving.time.perf_counter", lambda: now[0])
    mine = saver(tmp_path, StopRequest(), save_every_s=300.0)

    def save(trainer: Any) -> None:
        saved.append(trainer.global_step)
        mine._saved_step, mine._saved_at = trainer.global_step, now[0]

    monkeypatch.setattr(mine, "save", save)
    for step in range(1, 10):  # one step a minute, save_interval=10 is never reached
        now[0] += 60
        mine.on_train_batch_start(at(step), None, None, 0)  # type: ignore[arg-type]
    assert saved == [5]
    for step in (10, 11, 12, 13, 14, 15):
        now[0] += 60
        mine.on_train_batch_start(at(step), None, None, 0)  # type: ignore[arg-type]
    assert saved == [5, 10, 15]


@pytest.mark.parametrize(
    ("given", "said"), [("100", "save_interval=100"), ("soon", "is no duration"), ("-5m", "no dur")]
)
def test_save_every_needs_a_unit_and_says_what_counts_steps(given: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        CheckpointSettings(save_every=given)
    assert CheckpointSettings(save_every="5m").save_every == "5m"


def test_a_run_is_continued_under_the_config_that_it_wrote(tmp_path: Path) -> None:
    """Sections that are null are absent from the composed config: that must not make it another run."""
    words = ["+experiment=smoke", f"run.dir={tmp_path}", "run.name=a"]
    config = load(words)
    folder = RunFolder(tmp_path / "a")
    folder.path.mkdir()
    claim_run(folder, config)
    refuse_another_run(folder, load([*words, "run.resume=auto", "trainer.save_every=5m"]))
    with pytest.raises(ConfigError, match="cannot be resumed"):
        refuse_another_run(folder, load([*words, "seed=7"]))
