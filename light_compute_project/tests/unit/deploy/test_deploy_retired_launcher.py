"""The retired Hydra launcher is answered with the command to type now, and that command works."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from litgpt_core.core.errors import ConfigError
from litgpt_core.deploy.retired_launcher import is_for_launcher, refuse_launcher
from litgpt_core.deploy.slurm import carry_out, parse


def answer(*arguments: str) -> ConfigError:
    with pytest.raises(ConfigError) as problem:
        refuse_launcher(arguments)
    return problem.value


@pytest.mark.parametrize("argument", ["hydra/launcher=submitit_slurm", "+hydra.launcher.nodes=2", "~hydra/launcher"])
def test_what_was_for_the_launcher_is_recognised(argument: str) -> None:
    assert is_for_launcher(argument)
    assert not is_for_launcher("run.name=hydra/launcher")


def test_the_answer_is_a_command_of_lcp_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = [
        *("partition=gpu", "timeout_min=720", "gpus_per_node=1", "tasks_per_node=1", "cpus_per_task=4", "mem_gb=64"),
        *("nodes=2", "signal_delay_s=300", "max_num_timeout=5", "array_parallelism=3", "exclude=node[1-3]"),
    ]
    given = ["-m", "+experiment=smoke", "seed=1,2", "hydra/launcher=submitit_slurm"]
    fix = answer(*given, *(f"hydra.launcher.{one}" for one in settings)).fix
    words = shlex.split(fix)
    assert words[:4] == ["uv", "run", "lcp", "slurm"] and words[-1] == "--submit"
    arguments = words[4:-1]
    script = carry_out(parse(arguments, description=""))
    for line in (
        *("partition=gpu", "time=0-12:00:00", "gpus-per-node=1", "cpus-per-task=4", "mem=64G", "nodes=2"),
        *("signal=USR1@300", "array=0-1%3", "exclude='node[1-3]'"),
    ):
        assert f"#SBATCH --{line}\n" in script, line
    assert "-ge 5 ]" in script


def test_settings_without_a_counterpart_are_named() -> None:
    error = answer("+experiment=smoke", "hydra/launcher=submitit_slurm", "hydra.launcher.setup=[x]")
    assert "hydra.launcher.setup" in error.needed and "--setup" in error.needed


def test_jobs_of_this_machine_are_plain_runs() -> None:
    error = answer("-m", "+experiment=smoke", "seed=1,2", "hydra/launcher=submitit_local", "hydra.launcher.nodes=1")
    assert error.fix == "uv run lcp train -m +experiment=smoke seed=1,2"
