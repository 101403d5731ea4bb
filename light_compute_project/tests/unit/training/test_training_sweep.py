"""A sweep is the grid of its comma-separated values, each run with a name of its own."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from litgpt_core.errors import ConfigError
from litgpt_core.training import sweep


def names(jobs: list[list[str]]) -> list[str]:
    return [next(o for o in job if o.startswith("run.name=")).removeprefix("run.name=") for job in jobs]


def test_the_grid_is_complete_and_names_are_distinct() -> None:
    jobs = sweep.expand(["experiment=smoke", "optim.lr=1e-3,3e-3", "seed=1,2", "logger=none"])
    assert [[o for o in job if o.startswith(("optim", "seed"))] for job in jobs] == [
        ["optim.lr=0.001", "seed=1"],
        ["optim.lr=0.001", "seed=2"],
        ["optim.lr=0.003", "seed=1"],
        ["optim.lr=0.003", "seed=2"],
    ]
    assert names(jobs)[0] == "smoke-lr_0.001-seed_1" and len(set(names(jobs))) == 4
    assert all("experiment=smoke" in job and "logger=none" in job for job in jobs)


def test_a_given_name_is_the_base_and_a_swept_name_is_kept() -> None:
    assert names(sweep.expand(["+experiment=smoke", "run.name=x", "seed=1,2"])) == ["x-seed_1", "x-seed_2"]
    assert names(sweep.expand(["+experiment=smoke", "run.name=a,b"])) == ["a", "b"]


def test_lists_are_values_not_axes() -> None:
    assert len(sweep.expand(["+experiment=smoke", "optim.betas=[0.9,0.95]"])) == 1
    jobs = sweep.expand(["+experiment=smoke", "optim.betas=[0.9,0.95],[0.9,0.99]"])
    assert names(jobs) == ["smoke-betas_-0.9-0.95", "smoke-betas_-0.9-0.99"]


def test_everything_is_checked_before_the_first_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*arguments: Any, **options: Any) -> None:
        raise AssertionError("a run was started")

    monkeypatch.setattr(sweep.subprocess, "run", never)
    with pytest.raises(ConfigError, match=r"trainer\.max_steps=0"):
        sweep.sweep(["+experiment=smoke", "trainer.max_steps=10,0"])


def test_the_exit_code_is_the_first_failures_and_an_interrupt_ends_the_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    codes = [0, 2, 1]
    monkeypatch.setattr(sweep.subprocess, "run", lambda *a, **k: subprocess.CompletedProcess(a, codes.pop(0)))
    assert sweep.sweep(["+experiment=smoke", "seed=1,2,3"]) == 2
    codes = [130, 0]
    assert sweep.sweep(["+experiment=smoke", "seed=1,2"]) == 130 and codes == [0]


def test_runs_are_started_with_this_python(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []

    def record(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        seen.append(command)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(sweep.subprocess, "run", record)
    monkeypatch.setattr(sys, "argv", ["train.py"])
    assert sweep.sweep(["+experiment=smoke", "seed=1,2"]) == 0
    assert [command[:2] for command in seen] == [[sys.executable, "train.py"]] * 2
