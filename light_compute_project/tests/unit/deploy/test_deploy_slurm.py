"""lcp slurm: everything is checked before anything is queued; sbatch is a script that notes what it gets."""

from __future__ import annotations

import logging
import shlex
from pathlib import Path

import pytest

from litgpt_core.core.command_line import child_command
from litgpt_core.core.errors import ConfigError, EnvironmentProblem, LightComputeError
from litgpt_core.deploy.slurm import carry_out, parse


def run(*arguments: str) -> str:
    return carry_out(parse(["+experiment=smoke", "run.name=mine", *arguments], description=""))


def trained(script: str) -> list[str]:
    """The training's command line in a script."""
    [line] = [line for line in script.splitlines() if "litgpt_core train" in line]
    return shlex.split(line.removesuffix("|| code=$?"))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def sbatch(folder: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    (folder / "bin").mkdir()
    (folder / "bin" / "sbatch").write_text(f"#!/bin/sh\n{text}\n")
    (folder / "bin" / "sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}/bin:/usr/bin:/bin")


def test_a_script_is_shown_and_nothing_is_written(here: Path) -> None:
    script = run("--nodes", "2", "--tasks_per_node=4", "trainer.max_steps=8", "--time", "1h")
    assert script.startswith("#!/bin/bash\n#SBATCH --job-name=mine\n") and list(here.iterdir()) == []
    start, command = child_command("train"), trained(script)
    assert command[: len(start)] == start
    assert command[len(start) :] == [
        *("+experiment=smoke", "run.name=mine", "trainer.max_steps=8"),
        *("trainer.devices=4", "trainer.num_nodes=2", "run.resume=auto"),
    ]


def test_a_job_with_gpus_has_a_process_for_each_and_does_not_train_without_them(here: Path) -> None:
    script = run("--gpus_per_node", "a100:2")
    assert "#SBATCH --gpus-per-node=a100:2" in script and "#SBATCH --ntasks-per-node=2" in script
    assert {"trainer.devices=2", "trainer.accelerator=cuda"} <= set(trained(script))
    assert "trainer.accelerator=cuda" not in trained(run("--gpus_per_node=1", "trainer.accelerator=auto"))
    assert "trainer.accelerator=cuda" not in trained(run())


def test_cores_follow_from_the_config(here: Path) -> None:
    for settings, cores in (
        ([], 2),
        (["trainer.threads=6"], 6),
        (["trainer.num_workers=4"], 5),
        (["trainer.num_workers=4", "--cpus_per_task=4"], 4),
    ):
        assert f"#SBATCH --cpus-per-task={cores}\n" in run(*settings)


def test_more_workers_than_cores_are_refused(here: Path) -> None:
    with pytest.raises(ConfigError) as problem:
        run("trainer.num_workers=4", "trainer.threads=9", "--cpus_per_task=3")
    assert "--cpus_per_task=4" in str(problem.value) and "--cpus_per_task=9" in str(problem.value)


def test_a_batch_that_cannot_be_shared_is_refused_with_the_numbers(here: Path) -> None:
    with pytest.raises(ConfigError, match=r"global_batch_size=16 cannot be shared by 6 processes"):
        run("--nodes=2", "--tasks_per_node=3")


@pytest.mark.parametrize("typed", ["run.resume=auto", "run.resume=true", "+run.resume=auto"])
def test_a_job_always_continues(here: Path, typed: str) -> None:
    assert trained(run(typed)).count("run.resume=auto") == 1


def test_settings_that_would_be_ignored_are_refused(here: Path) -> None:
    with pytest.raises(ConfigError) as problem:
        run("trainer.devices=2", "trainer.num_nodes=2", "run.resume=false")
    assert all(word in str(problem.value) for word in ("--tasks_per_node", "--nodes", "remove run.resume"))


def test_a_sweep_is_one_array(here: Path) -> None:
    script = run("-m", "seed=1,2", "optim.lr=1e-3,5e-3", "--array_parallelism", "3", "trainer.num_workers=2")
    assert "#SBATCH --job-name=mine-sweep\n" in script and "#SBATCH --array=0-3%3\n" in script
    elements = [line for line in script.splitlines() if "litgpt_core train" in line]
    assert len(elements) == 4 and all(f"seed={seed}" in line for seed, line in zip("1122", elements, strict=True))
    assert "run.name=mine-seed_2-lr_0.005 run.resume=auto" in elements[3].replace("trainer.devices=1 ", "").replace(
        "trainer.num_nodes=1 ", ""
    )
    assert "#SBATCH --cpus-per-task=3\n" in script


def test_several_runs_are_an_array_only_with_multirun(here: Path) -> None:
    with pytest.raises(ConfigError, match=r"2 runs are requested.*\n.*-m for a job array"):
        run("seed=1,2")
    with pytest.raises(ConfigError, match="--array_parallelism"):
        run("-m", "seed=1,2", "sweep.jobs=2")


def test_a_run_of_a_sweep_that_does_not_fit_is_named(here: Path) -> None:
    with pytest.raises(ConfigError, match=r"mine-num_workers_9: trainer\.num_workers=9, but --cpus_per_task=4"):
        run("-m", "trainer.num_workers=2,9", "--cpus_per_task=4")


def test_a_time_limit_without_a_unit_is_seconds_and_says_so(
    here: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("litgpt_core"), "propagate", True)
    assert "#SBATCH --time=0-00:12:00\n" in run("--time=720")
    assert "--time=720 is 720 seconds" in caplog.text and "--time=720m" in caplog.text
    caplog.clear()
    assert "#SBATCH --time=0-12:00:00\n" in run("--time=720m") and caplog.text == ""


def test_slips_of_the_request_and_of_the_config_are_told_at_once(here: Path) -> None:
    with pytest.raises(ConfigError) as problem:
        run("--nodes=0", "--time=never", "trainer.max_stps=3", "optim.lr=-1")
    text = str(problem.value)
    assert all(word in text for word in ("--nodes=0", "--time='never'", "did you mean max_steps", "optim.lr")), text


def test_submitting_keeps_the_script_and_says_what_next(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sbatch(here, monkeypatch, f'echo "$@" > {here}/asked; echo "17;cluster"')
    told = run("--submit", "--mem=2G")
    script = here / "runs" / "slurm" / "mine.sbatch"
    assert script.read_text() == run("--mem=2G")
    assert (here / "asked").read_text().split() == ["--parsable", str(script)]
    assert "job 17 is in the queue" in told and "runs/slurm/mine-17.out" in told and "scancel 17" in told
    assert str(here) not in told


def test_submitting_a_sweep_names_the_logs_of_its_runs(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sbatch(here, monkeypatch, "echo 17")
    told = run("-m", "seed=1,2", "--submit")
    assert "job 17, an array of 2 runs," in told and "runs/slurm/mine-sweep-17_0.out" in told
    assert (here / "runs" / "slurm" / "mine-sweep.sbatch").is_file()


def test_what_sbatch_says_against_it_is_told(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sbatch(here, monkeypatch, "echo 'sbatch: error: invalid partition specified: x' >&2; exit 1")
    with pytest.raises(EnvironmentProblem, match="invalid partition specified: x"):
        run("--submit", "--partition=x")


def test_without_sbatch_there_is_a_plain_word(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(here))
    with pytest.raises(EnvironmentProblem, match="no sbatch"):
        run("--submit")


def test_a_job_that_submits_another_does_not_hand_on_its_own_place(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sbatch(here, monkeypatch, f"env > {here}/environment; echo 1")
    for name, value in {"SLURM_CPUS_PER_TASK": "3", "SBATCH_ACCOUNT": "me", "SLURM_CONF": "/etc/x"}.items():
        monkeypatch.setenv(name, value)
    run("--submit")
    assert "SLURM_CPUS_PER_TASK=3" in (here / "environment").read_text()
    monkeypatch.setenv("SLURM_JOB_ID", "4")
    run("--submit")
    inside = (here / "environment").read_text()
    assert "SLURM_CPUS_PER_TASK" not in inside and "SBATCH_ACCOUNT=me" in inside and "SLURM_CONF=/etc/x" in inside


def test_options_that_exclude_each_other_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for pair in (["--gpus_per_node=2", "--tasks_per_node=2"], ["--print", "--submit"], ["--node=2"]):
        with pytest.raises((SystemExit, LightComputeError)):
            run(*pair)
