"""The launcher's settings: Hydra's names, checked like every other setting, in the words that submitit understands."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from litgpt_core.core.errors import ConfigError
from litgpt_core.deploy.launcher_settings import (
    LocalLauncher,
    SlurmLauncher,
    is_for_launcher,
    parse_launcher,
    settings_for_submitit,
)

SLURM = "hydra/launcher=submitit_slurm"
HYDRAS_LOCAL = {
    *("submitit_folder", "timeout_min", "cpus_per_task", "gpus_per_node", "tasks_per_node", "mem_gb", "nodes", "name"),
    *("stderr_to_stdout", "wait_for_completion"),
}
HYDRAS_SLURM = {
    *("partition", "qos", "comment", "constraint", "exclude", "gres", "cpus_per_gpu", "gpus_per_task", "mem_per_gpu"),
    *("mem_per_cpu", "account", "signal_delay_s", "max_num_timeout", "additional_parameters", "array_parallelism"),
    "setup",
}


def names(kind: type[LocalLauncher]) -> set[str]:
    return {field.name for field in dataclasses.fields(kind)}


def test_names_are_those_of_hydras_launcher() -> None:
    assert names(SlurmLauncher) == HYDRAS_LOCAL | HYDRAS_SLURM
    assert names(LocalLauncher) == HYDRAS_LOCAL | {"array_parallelism"}


def test_what_belongs_to_the_launcher() -> None:
    typed = ["+hydra/launcher=submitit_local", "hydra.launcher.nodes=2", "++hydra.launcher.qos=x"]
    assert all(map(is_for_launcher, typed))
    others = ["hydra.sweep.dir=x", "-m", "+experiment=smoke", "run.name=hydra.launcher.x", "hydra/sweeper=optuna"]
    assert not any(map(is_for_launcher, others))


def test_values_are_read_by_hydras_grammar_and_names_stay_text() -> None:
    launcher = parse_launcher(
        [
            SLURM,
            "hydra.launcher.partition=2024",
            "hydra.launcher.timeout_min=90",
            "++hydra.launcher.mem_gb=1.5",
            "hydra.launcher.qos=null",
            "hydra.launcher.setup=['module load cuda',ls]",
            "hydra.launcher.additional_parameters={mail-type: END, exclusive: true}",
            "hydra.launcher.constraint=a100|h100",
            "hydra.launcher.wait_for_completion=true",
        ]
    )
    assert isinstance(launcher, SlurmLauncher)
    assert (launcher.partition, launcher.timeout_min, launcher.mem_gb, launcher.qos) == ("2024", 90, 1.5, None)
    assert launcher.setup == ["module load cuda", "ls"]
    assert launcher.additional_parameters == {"mail-type": "END", "exclusive": True}
    assert launcher.constraint == "a100|h100" and launcher.waits


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["hydra/launcher=submitit_slum"], "did you mean submitit_slurm"),
        (["hydra.launcher.nodes=2"], "without hydra/launcher; there are: submitit_local, submitit_slurm"),
        ([SLURM, "hydra.launcher.partion=x"], "did you mean partition?"),
        ([SLURM, "hydra.launcher.timeout_min=soon"], "timeout_min=soon: needed a valid integer"),
        ([SLURM, "hydra.launcher.nodes=0"], "nodes=0: needed more than 0"),
        ([SLURM, "hydra.launcher.nodes=1,2"], "needed one value"),
        ([SLURM, "hydra.launcher.setup=ls"], "setup=ls: needed a valid list"),
        ([SLURM, "hydra.launcher.nodes=2", "hydra.launcher.gpus_per_node=4"], "hydra.launcher.tasks_per_node=4"),
        (["hydra/launcher=submitit_local", "hydra.launcher.partition=x"], "submitit_slurm has it"),
        (["hydra/launcher=submitit_local", "hydra.launcher.nodes=2"], "submitit_local has one machine"),
    ],
)
def test_a_slip_is_refused_with_what_to_type(typed: list[str], said: str) -> None:
    with pytest.raises(ConfigError) as problem:
        parse_launcher(typed)
    assert said in str(problem.value)


def test_all_slips_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as problem:
        parse_launcher(["hydra/launcher=slurm", "hydra.launcher.partion=x", "hydra.launcher.nodes=many"])
    assert all(word in str(problem.value) for word in ("hydra/launcher=slurm", "partion", "nodes=many"))


def test_one_task_may_hold_several_gpus_and_start_its_own_processes() -> None:
    launcher = parse_launcher([SLURM, "hydra.launcher.gpus_per_node=4"])
    assert (launcher.world_size, launcher.gpus_per_node) == (1, 4)


def test_times_and_waiting_differ_here_and_in_a_queue() -> None:
    here, queue = parse_launcher(["hydra/launcher=submitit_local"]), parse_launcher([SLURM])
    assert (here.minutes > 500_000, here.waits) == (True, True)
    assert (queue.minutes, queue.waits) == (60, False)


def test_submitit_writes_what_was_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import submitit

    (tmp_path / "srun").touch(mode=0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    launcher = parse_launcher(
        [
            SLURM,
            "hydra.launcher.partition=gpu",
            "hydra.launcher.timeout_min=90",
            "hydra.launcher.nodes=2",
            "hydra.launcher.tasks_per_node=4",
            "hydra.launcher.gpus_per_node=4",
            "hydra.launcher.cpus_per_task=6",
            "hydra.launcher.mem_gb=64",
            "hydra.launcher.signal_delay_s=300",
            "hydra.launcher.setup=['module load cuda']",
            "hydra.launcher.additional_parameters={mail-type: END}",
        ]
    )
    executor = submitit.AutoExecutor(folder=tmp_path / "%j", cluster="slurm")
    shared = list(submitit.AutoExecutor._typed_parameters())
    executor.update_parameters(**settings_for_submitit(launcher, name="mine", shared=shared))
    script = executor._executor._make_submission_file_text("COMMAND", "")  # type: ignore[attr-defined]
    lines = set(script.splitlines())
    assert lines >= {
        "#SBATCH --partition=gpu",
        "#SBATCH --time=90",
        "#SBATCH --nodes=2",
        "#SBATCH --ntasks-per-node=4",
        "#SBATCH --gpus-per-node=4",
        "#SBATCH --cpus-per-task=6",
        "#SBATCH --mem=64GB",
        "#SBATCH --signal=USR2@300",
        "#SBATCH --job-name=mine",
        "#SBATCH --mail-type=END",
        "#SBATCH --requeue",
        "module load cuda",
    }
    assert " --cpus-per-task=6 COMMAND" in script
