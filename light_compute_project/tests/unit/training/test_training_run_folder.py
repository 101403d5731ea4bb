"""Metrics files, the stop request and the plain facts of a run folder."""

from __future__ import annotations

import json
import math
import os
import signal
from pathlib import Path

import pytest

from litgpt_core.config.compose import load
from litgpt_core.config.loggers import WandbSettings
from litgpt_core.config.train_config import RunSettings
from litgpt_core.core.errors import ConfigError, Interrupted
from litgpt_core.training.metrics import bits_per_byte
from litgpt_core.training.results import draw_curves, final_and_best
from litgpt_core.training.rows import read_rows
from litgpt_core.training.run_folder import write_json
from litgpt_core.training.start import back_to_the_queue
from litgpt_core.training.stop import stop_on_signals
from litgpt_core.training.wandb_runs import wandb_mode


def row(step: int, *, val: float | None = None) -> dict[str, object]:
    return {"step": step, "tokens": step * 10, "train_loss": 3.0 / step, "val_loss": val, "val_bpb": val}


def test_bits_per_byte_of_a_uniform_byte_model_is_eight() -> None:
    assert bits_per_byte(math.log(256), tokens_per_byte=1.0) == pytest.approx(8.0)
    assert bits_per_byte(math.log(256), tokens_per_byte=0.25) == pytest.approx(2.0)


def test_an_incomplete_last_row_is_skipped(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(json.dumps(row(1)) + "\n" + json.dumps(row(2))[:20])
    assert [r["step"] for r in read_rows(path)] == [1]
    assert read_rows(tmp_path / "absent.jsonl") == []


def test_best_is_the_lowest_validation_not_the_last() -> None:
    chosen = final_and_best([row(1, val=2.0), row(2, val=1.0), row(3, val=1.5), row(4)])
    assert chosen["best"]["step"] == 2 and chosen["final"]["step"] == 4


def test_the_picture_is_drawn_even_from_one_row(tmp_path: Path) -> None:
    draw_curves(
        [row(1, val=2.0)], tmp_path / "loss.png", title="one", references={"unigram": 5.0}, val_tokens_per_byte=0.3
    )
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert [p.name for p in tmp_path.iterdir()] == ["loss.png"]


def test_write_json_leaves_no_temporary_file(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"a": 1})
    write_json(tmp_path / "a.json", {"a": 2})
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": 2}


@pytest.mark.parametrize("name", ["", "../x", "a/b", "-x", "a b"])
def test_run_names_stay_inside_their_folder(name: str) -> None:
    with pytest.raises(ConfigError, match=r"run\.name"):
        RunSettings(name=name)


def test_batch_arithmetic_names_the_numbers_and_a_way_out() -> None:
    with pytest.raises(ConfigError) as caught:
        load(["trainer.global_batch_size=24", "trainer.micro_batch_size=7", "trainer.max_steps=0"])
    message = str(caught.value)
    assert "micro_batch_size=7" in message and "global_batch_size=24" in message
    assert "try trainer.micro_batch_size=6" in message and "max_steps=0" in message


def test_a_signal_before_training_stops_at_once_and_while_training_waits() -> None:
    with stop_on_signals() as stop:
        with pytest.raises(Interrupted) as caught:
            signal.raise_signal(signal.SIGTERM)
        assert caught.value.exit_code == 143
    with stop_on_signals() as stop:
        stop.training = True
        signal.raise_signal(signal.SIGINT)
        assert stop.signal == signal.SIGINT and stop.exit_code == 130
        with pytest.raises(Interrupted, match="second"):
            signal.raise_signal(signal.SIGINT)


def test_a_signal_while_libraries_are_loaded_waits_for_them_and_a_second_one_does_not() -> None:
    done = []
    with stop_on_signals() as stop, pytest.raises(Interrupted, match="by SIGTERM before the first step") as caught:
        with stop.loading():
            signal.raise_signal(signal.SIGTERM)
            done.append("the import")
        done.append("what follows")
    assert done == ["the import"] and caught.value.exit_code == 143
    with stop_on_signals() as stop, pytest.raises(Interrupted, match="by SIGTERM"), stop.loading():
        signal.raise_signal(signal.SIGTERM)  # queues send several
        signal.raise_signal(signal.SIGTERM)
        done.append("the second import")
    with stop_on_signals() as stop, pytest.raises(Interrupted, match="by SIGINT"), stop.loading():
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)  # the first of its kind
        done.append("the third import")
    with stop_on_signals() as stop, pytest.raises(Interrupted), stop.loading():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        done.append("what follows")
    with stop_on_signals() as stop, pytest.raises(Interrupted):  # and after the block as before it
        with stop.loading():
            pass
        signal.raise_signal(signal.SIGINT)
        done.append("what follows")
    assert done == ["the import", "the second import", "the third import"]


class _Copied(Interrupted):
    """As OmegaConf raises it: of the same kind, without what it knew."""


@pytest.mark.parametrize("made_of_it", [_Copied("full_key: optim"), ImportError("cannot import"), RuntimeError("gone")])
def test_a_signal_stays_one_whatever_a_library_makes_of_its_exception(made_of_it: Exception) -> None:
    with (
        stop_on_signals() as stop,
        pytest.raises(Interrupted, match="by SIGTERM before the first step") as caught,
        back_to_the_queue(stop),
    ):
        try:
            signal.raise_signal(signal.SIGTERM)
        except Interrupted:
            raise made_of_it from None
    assert caught.value.exit_code == 143


@pytest.mark.parametrize("unheard", [None, signal.SIGINT])
def test_an_error_that_no_signal_made_stays_what_it_is(unheard: signal.Signals | None) -> None:
    with stop_on_signals() as stop, pytest.raises(ImportError), back_to_the_queue(stop):
        stop.signal = unheard  # one that came when nobody asked any more
        raise ImportError("no such module")


def test_a_signal_that_came_after_the_last_step_had_asked_is_heard_at_the_end_of_training() -> None:
    with stop_on_signals() as stop, pytest.raises(Interrupted, match="SIGTERM after the last step") as caught:
        stop.training = True
        signal.raise_signal(signal.SIGTERM)
        stop.end_at_once("after the last step")
    assert caught.value.exit_code == 143


def test_signal_handlers_are_put_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with stop_on_signals():
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before


def test_wandb_is_offline_without_a_key_and_online_with_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [k for k in os.environ if k.startswith("WANDB")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    assert wandb_mode(WandbSettings()) == "offline"
    assert wandb_mode(WandbSettings(mode="online")) == "offline"
    (tmp_path / ".netrc").write_text("machine api.wandb.ai login user password " + "0" * 40)
    assert wandb_mode(WandbSettings()) == "online"
    (tmp_path / ".netrc").unlink()
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    assert wandb_mode(WandbSettings()) == "online"
    assert wandb_mode(WandbSettings(mode="offline")) == "offline"
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert wandb_mode(WandbSettings()) == "disabled"
