"""The rendered script, carried out by bash with stand-ins for SLURM's commands; a real SLURM has its own tests."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from litgpt_core.core.errors import ConfigError
from litgpt_core.deploy.job_request import JobRequest
from litgpt_core.deploy.sbatch_script import TrainingJob, render

NASTY = ["it's", 'a "b" $HOME', "line\nbreak", "*", "`ls`", "\\", ""]

STAND_INS = {
    "srun": """#!{python}
import json, os, sys
if "{folder}" and os.environ.get("CODE"):
    sys.exit(int(os.environ["CODE"]))
names = "MASTER_ADDR MASTER_PORT LIGHT_COMPUTE_REQUEUE OMP_NUM_THREADS RANK".split()
print(json.dumps([sys.argv[1:], {{name: os.environ.get(name) for name in names}}]))
""",
    "scontrol": """#!/bin/sh
case "$*" in
    "show hostnames "*) printf 'first\\nsecond\\n' ;;
    "show node first --oneliner") echo "NodeName=first Arch=x NodeAddr=10.0.0.7 NodeHostName=first" ;;
    *) echo "$@" >> {folder}/asked ;;
esac
""",
    "getent": """#!/bin/sh
exit ${{GETENT:-0}}
""",
}


def job(folder: Path, **changes: Any) -> TrainingJob:
    values: dict[str, Any] = {
        "name": "x",
        "commands": [["train", *NASTY]],
        "folder": folder,
        "logs": folder,
        "cores": 3,
    }
    return TrainingJob(**values | changes)


@pytest.fixture
def bash(tmp_path: Path) -> Any:
    """`bash(script, **environment)`: run a script among the stand-ins."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in STAND_INS.items():
        (programs / name).write_text(text.format(python=sys.executable, folder=tmp_path))
        (programs / name).chmod(0o755)

    def run(script: str, **environment: str) -> subprocess.CompletedProcess[str]:
        path = tmp_path / "job.sbatch"
        path.write_text(script)
        variables = {"PATH": f"{programs}:/usr/bin:/bin", "SLURM_JOB_ID": "20017", "SLURM_JOB_NODELIST": "x[1-2]"}
        return subprocess.run(["bash", str(path)], env=variables | environment, capture_output=True, text=True)

    return run


def options(script: str) -> dict[str, str]:
    lines = [line.removeprefix("#SBATCH --") for line in script.splitlines() if line.startswith("#SBATCH --")]
    return {key: value for key, _, value in (line.partition("=") for line in lines)}


def test_every_argument_arrives_as_it_was_typed(bash: Any, tmp_path: Path) -> None:
    done = bash(render(job(tmp_path), JobRequest()))
    arguments, _ = json.loads(done.stdout)
    assert arguments == ["--cpus-per-task=3", "--kill-on-bad-exit=1", "train", *NASTY]
    assert (done.returncode, done.stderr) == (0, "")


def test_what_was_asked_stands_in_the_head_and_what_was_not_does_not(tmp_path: Path) -> None:
    found = options(render(job(tmp_path), JobRequest()))
    assert found == {
        "job-name": "x",
        "chdir": str(tmp_path),
        "output": f"{tmp_path}/x-%j.out",
        "open-mode": "append",
        "nodes": "1",
        "ntasks-per-node": "1",
        "cpus-per-task": "3",
        "signal": "USR1@120",
        "requeue": "",
    }
    more = JobRequest(
        nodes=2,
        tasks_per_node=8,
        gpus_per_node="8",
        mem="64gb",
        time="12h",
        partition="gpu",
        account="me",
        qos="long",
        constraint="a|b",
        signal_grace=300,
        sbatch=["--exclusive", "--comment=two words"],
    )
    assert (
        options(render(job(tmp_path), more)).items()
        >= {
            "nodes": "2",
            "ntasks-per-node": "8",
            "gpus-per-node": "8",
            "mem": "64G",
            "time": "0-12:00:00",
            "partition": "gpu",
            "account": "me",
            "qos": "long",
            "constraint": "'a|b'",
            "signal": "USR1@300",
            "exclusive": "",
            "comment": "'two words'",
        }.items()
    )


def test_the_warning_goes_to_the_processes_and_not_to_the_shell(tmp_path: Path) -> None:
    assert not options(render(job(tmp_path), JobRequest()))["signal"].startswith(("B:", "R:", "BR:"))


def test_a_percent_sign_in_a_folder_is_no_pattern(tmp_path: Path) -> None:
    found = options(render(job(tmp_path, logs=Path("/runs 100%/slurm")), JobRequest()))
    assert found["output"] == "'/runs 100%%/slurm/x-%j.out'"


@pytest.mark.parametrize("control", ["\n", "\r", "\x1b", "\x85"])
def test_a_folder_with_a_control_character_adds_no_line_to_the_script(tmp_path: Path, control: str) -> None:
    hostile = Path(f"/runs{control}touch pwned")
    with pytest.raises(ConfigError, match=r"--output would be .* control character"):
        render(job(tmp_path, logs=hostile), JobRequest())
    with pytest.raises(ConfigError, match="--chdir"):
        render(dataclasses.replace(job(tmp_path), folder=hostile), JobRequest())


def test_rank_0_waits_under_a_name_that_others_find_or_under_slurms_address(bash: Any, tmp_path: Path) -> None:
    script = render(job(tmp_path), JobRequest(nodes=2))
    _, known = json.loads(bash(script).stdout)
    _, unknown = json.loads(bash(script, GETENT="2").stdout)
    assert (known["MASTER_ADDR"], known["MASTER_PORT"]) == ("first", "20017")
    assert (unknown["MASTER_ADDR"], unknown["MASTER_PORT"]) == ("10.0.0.7", "20017")


def test_the_environment_of_another_launcher_is_left_behind_and_threads_are_the_cores(
    bash: Any, tmp_path: Path
) -> None:
    script = render(job(tmp_path), JobRequest())
    _, found = json.loads(bash(script, RANK="3").stdout)
    assert (found["RANK"], found["OMP_NUM_THREADS"]) == (None, "3")
    _, found = json.loads(bash(script, OMP_NUM_THREADS="1").stdout)
    assert found["OMP_NUM_THREADS"] == "1"


def test_another_turn_is_asked_for_only_so_often(bash: Any, tmp_path: Path) -> None:
    script = render(job(tmp_path), JobRequest(max_requeues=5))
    wishes = [json.loads(bash(script, SLURM_RESTART_COUNT=n).stdout)[1]["LIGHT_COMPUTE_REQUEUE"] for n in ("4", "5")]
    assert wishes == ["1", "0"]


@pytest.mark.parametrize(("code", "asked"), [("138", "requeue 20017\n"), ("143", ""), ("1", ""), ("2", "")])
def test_the_script_asks_only_where_python_could_not(bash: Any, tmp_path: Path, code: str, asked: str) -> None:
    done = bash(render(job(tmp_path), JobRequest()), CODE=code)
    log = tmp_path / "asked"
    assert (done.returncode, log.read_text() if log.exists() else "") == (int(code), asked)


def test_setup_runs_before_the_training(bash: Any, tmp_path: Path) -> None:
    done = bash(render(job(tmp_path), JobRequest(setup=["echo first", "export OMP_NUM_THREADS=7"])))
    first, second = done.stdout.splitlines()
    assert first == "first" and json.loads(second)[1]["OMP_NUM_THREADS"] == "7"


def test_a_sweep_is_an_array_whose_elements_run_their_own_command(bash: Any, tmp_path: Path) -> None:
    commands = [["train", *NASTY], ["train", "seed=2"], ["train", "seed=3"]]
    script = render(job(tmp_path, commands=commands), JobRequest(array_parallelism=2))
    assert options(script)["array"] == "0-2%2" and options(script)["output"] == f"{tmp_path}/x-%A_%a.out"
    for number, command in enumerate(commands):
        done = bash(script, SLURM_ARRAY_JOB_ID="20015", SLURM_ARRAY_TASK_ID=str(number))
        assert json.loads(done.stdout)[0] == ["--cpus-per-task=3", "--kill-on-bad-exit=1", *command]
    assert "array" not in options(render(job(tmp_path), JobRequest(array_parallelism=2)))


def test_an_element_of_an_array_is_requeued_alone(bash: Any, tmp_path: Path) -> None:
    script = render(job(tmp_path, commands=[["train"], ["train"]]), JobRequest())
    bash(script, SLURM_ARRAY_JOB_ID="20015", SLURM_ARRAY_TASK_ID="1", CODE="138")
    assert (tmp_path / "asked").read_text() == "requeue 20015_1\n"
