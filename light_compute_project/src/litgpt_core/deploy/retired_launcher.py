"""`train.py ... hydra/launcher=submitit_slurm` was the other way into a SLURM queue: answered with what to type now."""

from __future__ import annotations

from collections.abc import Sequence

from litgpt_core.core.command_line import shown_command
from litgpt_core.core.errors import ConfigError

CHOICE, PREFIX = "hydra/launcher", "hydra.launcher."

_NOW = {
    **{name: f"--{name}={{}}" for name in ("partition", "account", "qos", "constraint", "nodes")},
    **{name: f"--sbatch=--{name}={{}}" for name in ("exclude", "comment")},
    "gpus_per_node": "--gpus_per_node={}",
    "tasks_per_node": "--tasks_per_node={}",
    "cpus_per_task": "--cpus_per_task={}",
    "timeout_min": "--time={}m",
    "mem_gb": "--mem={}G",
    "signal_delay_s": "--signal_grace={}",
    "max_num_timeout": "--max_requeues={}",
    "array_parallelism": "--array_parallelism={}",
}
"""Setting of the launcher -> option of slurm.py."""


def is_for_launcher(argument: str) -> bool:
    """Whether a command-line argument chooses or sets a Hydra launcher."""
    key = argument.lstrip("+~").partition("=")[0]
    return key == CHOICE or key.startswith(PREFIX)


def refuse_launcher(arguments: Sequence[str]) -> int:
    """Raise the error that names the command to type now.

    Args:
        arguments: The whole command line of `train.py`.

    Raises:
        ConfigError: Always.
    """
    kept = [text for text in arguments if not is_for_launcher(text)]
    given = dict(text.lstrip("+~").partition("=")[::2] for text in arguments if is_for_launcher(text))
    chosen = given.pop(CHOICE, "")
    names = {key.removeprefix(PREFIX): value for key, value in given.items()}
    if "gpus_per_node" in names:
        names.pop("tasks_per_node", None)  # slurm.py starts one process per GPU
    options = [_NOW[name].format(value) for name, value in names.items() if name in _NOW]
    lost = [f"{PREFIX}{name}" for name in names if name not in _NOW]
    verb, more = ("train", []) if chosen == "submitit_local" else ("slurm", [*options, "--submit"])
    note = f" ({', '.join(lost)}: see lcp slurm --help, --setup and --sbatch)" if lost and more else ""
    raise ConfigError(
        f"{CHOICE}={chosen or '...'} is no longer supported",
        needed="lcp slurm for jobs of a SLURM queue (-m: a job array), lcp train for runs on this machine" + note,
        fix=shown_command(verb, *kept, *more),
    )
