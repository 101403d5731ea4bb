"""`hydra/launcher=submitit_local` with a stand-in for train.py: a grid becomes jobs, which run so many at a time."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from litgpt_core.core.errors import ConfigError, EnvironmentProblem
from litgpt_core.deploy import submitit_launcher
from litgpt_core.deploy.submitit_launcher import launch

PROGRAM = """
import pathlib, sys, time
seed = next(a for a in sys.argv if a.startswith("seed=")).partition("=")[2]
name = next(a for a in sys.argv if a.startswith("run.name=")).partition("=")[2]
with pathlib.Path("log").open("a") as log:
    print("begin", name, file=log, flush=True)
    time.sleep(0.3)
    print("end", name, file=log, flush=True)
if seed == "3":
    sys.exit("seed 3 is unlucky")
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    def stand_in(overrides: Sequence[str]) -> list[str]:
        return [sys.executable, "-c", PROGRAM, *overrides]

    monkeypatch.setattr(submitit_launcher, "train_command", stand_in)
    monkeypatch.setattr(logging.getLogger("litgpt_core"), "propagate", True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


SMOKE = ("+experiment=smoke", "run.name=x")
HERE = "hydra/launcher=submitit_local"


def test_a_grid_runs_one_after_the_other_and_a_failure_is_told(here: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        assert launch([*SMOKE, "-m", "seed=1,3", HERE]) == 1
    lines = (here / "log").read_text().splitlines()
    assert lines == ["begin x-seed_1", "end x-seed_1", "begin x-seed_3", "end x-seed_3"]
    assert "x-seed_1: done" in caplog.text and "x-seed_3: failed: seed 3 is unlucky" in caplog.text


def test_several_run_at_a_time_where_that_is_asked_for(here: Path) -> None:
    assert launch([*SMOKE, "-m", "seed=1,2", HERE, "hydra.launcher.array_parallelism=2"]) == 0
    assert [line.split()[0] for line in (here / "log").read_text().splitlines()] == ["begin", "begin", "end", "end"]


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["seed=1,2"], "2 runs are asked for"),
        (["trainer.max_stps=3"], "did you mean max_steps"),
        (["run.resume=false"], "leave run.resume away"),
        (["trainer.num_workers=4", "hydra.launcher.cpus_per_task=2"], "hydra.launcher.cpus_per_task=4"),
        (["hydra.launcher.tasks_per_node=3"], "cannot be shared by 3 processes"),
        (["hydra.launcher.tasks_per_node=2", "trainer.devices=2"], "hydra.launcher.tasks_per_node"),
        (["-m", "seed=1,2", "sweep.jobs=2"], "hydra.launcher.array_parallelism"),
        (["hydra.sweep.dir=x"], "Hydra's own settings"),
    ],
)
def test_slips_are_refused_before_anything_starts(here: Path, typed: list[str], said: str) -> None:
    with pytest.raises(ConfigError) as problem:
        launch([*SMOKE, HERE, *typed])
    assert said in str(problem.value)
    assert list(here.iterdir()) == []


def test_without_slurm_there_is_a_plain_word(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(here))
    with pytest.raises(EnvironmentProblem, match="no srun"):
        launch([*SMOKE, "hydra/launcher=submitit_slurm"])


def test_what_sbatch_says_against_it_is_told(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "bin").mkdir()
    for name in ("srun", "sbatch"):
        (here / "bin" / name).write_text("#!/bin/sh\necho 'invalid partition specified: x' >&2; exit 1\n")
        (here / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{here}/bin:/usr/bin:/bin")
    with pytest.raises(EnvironmentProblem, match="invalid partition specified: x"):
        launch([*SMOKE, "hydra/launcher=submitit_slurm", "hydra.launcher.partition=x"])
