"""`hydra/launcher=submitit_slurm hydra.launcher.partition=gpu ...`: the launcher's settings, under the names that
Hydra's submitit launcher has given them. What is typed is checked here; `submitit_launcher.py` obeys it.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from litgpt_core.core.errors import ConfigError, LightComputeError
from litgpt_core.core.text import nearest

CHOICE = "hydra/launcher"
PREFIX = "hydra.launcher."


@dataclass(frozen=True, kw_only=True)
class LocalLauncher:
    """`submitit_local`: jobs on this machine, without a queue."""

    submitit_folder: str | None = None
    """Scripts, logs and results of jobs, with %j for a job's number; null: .submitit/%j below run.dir."""
    timeout_min: int | None = None
    """Longest time of a job in minutes; null: an hour in a queue (as Hydra has it), a year here."""
    cpus_per_task: int | None = None
    """Cores of each process; null: the queue's own choice."""
    gpus_per_node: int | None = None
    """GPUs on each node; null: none."""
    tasks_per_node: int = 1
    """Processes that are started on each node."""
    mem_gb: float | None = None
    """Memory of each node in GB; null: the queue's own choice."""
    nodes: int = 1
    """Machines of a job."""
    name: str | None = None
    """The job's name; null: the run's."""
    stderr_to_stdout: bool = False
    """One log for both."""
    wait_for_completion: bool | None = None
    """Whether the command stays until its jobs have ended; null: here yes, in a queue no."""
    array_parallelism: int = 1
    """Most jobs of a sweep at a time."""

    cluster: typing.ClassVar[str] = "local"

    def __post_init__(self) -> None:
        names = (
            "timeout_min",
            "cpus_per_task",
            "gpus_per_node",
            "tasks_per_node",
            "mem_gb",
            "nodes",
            "array_parallelism",
        )
        problems = [
            f"{PREFIX}{name}={value}: needed more than 0"
            for name in names
            if (value := getattr(self, name)) is not None and value <= 0
        ]
        problems += self._contradictions()
        if problems:
            raise ConfigError("\n".join(problems))

    def _contradictions(self) -> list[str]:
        found = []
        if self.cluster == "local" and self.nodes > 1:
            found.append(f"{PREFIX}nodes={self.nodes}: submitit_local has one machine: {CHOICE}=submitit_slurm")
        if self.gpus_per_node and self.world_size > 1 and self.gpus_per_node != self.tasks_per_node:
            found.append(
                f"{PREFIX}gpus_per_node={self.gpus_per_node} with {PREFIX}tasks_per_node={self.tasks_per_node}: "
                f"needed one task for each GPU: {PREFIX}tasks_per_node={self.gpus_per_node}"
            )
        return found

    @property
    def world_size(self) -> int:
        """Processes that are started for each run."""
        return self.nodes * self.tasks_per_node

    @property
    def minutes(self) -> int:
        """`timeout_min`, decided."""
        return self.timeout_min or 365 * 24 * 60

    @property
    def waits(self) -> bool:
        """`wait_for_completion`, decided."""
        return self.wait_for_completion is not False


@dataclass(frozen=True, kw_only=True)
class SlurmLauncher(LocalLauncher):
    """`submitit_slurm`: jobs in a SLURM queue; the runs of a sweep are one array."""

    partition: str | None = None
    """Partition of the cluster."""
    qos: str | None = None
    """Quality of service."""
    comment: str | None = None
    """Free text for the cluster's accounting."""
    constraint: str | None = None
    """Features that nodes must have."""
    exclude: str | None = None
    """Nodes to stay away from."""
    gres: str | None = None
    """Generic resources, such as gpu:a100:4."""
    cpus_per_gpu: int | None = None
    """Cores for each GPU; needs gpus_per_task."""
    gpus_per_task: int | None = None
    """GPUs of each process."""
    mem_per_gpu: str | None = None
    """Memory for each GPU, such as 32G."""
    mem_per_cpu: str | None = None
    """Memory for each core, such as 4G."""
    account: str | None = None
    """Whom the time is charged to."""
    signal_delay_s: int = 120
    """Seconds before the end at which the run is told to save and leave."""
    max_num_timeout: int = 200
    """How often a job that ran out of time returns to the queue. Hydra has 0, for programs that cannot continue."""
    additional_parameters: dict[str, Any] = field(default_factory=dict)
    """Other options of sbatch: {mail-type: END}."""
    array_parallelism: int = 256
    """Most jobs of a sweep at a time."""
    setup: list[str] | None = None
    """Shell lines before the training starts."""

    cluster: typing.ClassVar[str] = "slurm"

    @property
    def minutes(self) -> int:
        """`timeout_min`, decided."""
        return self.timeout_min or 60

    @property
    def waits(self) -> bool:
        """`wait_for_completion`, decided."""
        return self.wait_for_completion is True


LAUNCHERS: dict[str, type[LocalLauncher]] = {"submitit_local": LocalLauncher, "submitit_slurm": SlurmLauncher}


def is_for_launcher(argument: str) -> bool:
    """Whether a command-line argument chooses or sets a launcher."""
    key = argument.lstrip("+~").partition("=")[0]
    return key == CHOICE or key.startswith(PREFIX)


def parse_launcher(arguments: Sequence[str]) -> LocalLauncher:
    """The launcher that the arguments ask for.

    Args:
        arguments: Those of the command line for which `is_for_launcher` is true.

    Raises:
        ConfigError: With every problem that was found.
    """
    given = {text.lstrip("+~").partition("=")[0]: text for text in arguments}
    problems: list[str] = []
    chosen = given.pop(CHOICE, "").partition("=")[2]
    kind = LAUNCHERS.get(chosen)
    if kind is None:
        what = f"{CHOICE}={chosen}" if chosen else f"{', '.join(given.values())} without {CHOICE}"
        problems.append(f"{what}{nearest(chosen, LAUNCHERS)}")
        kind = SlurmLauncher
    hints = {name: hint for name, hint in typing.get_type_hints(kind).items() if name != "cluster"}
    values: dict[str, Any] = {}
    for key, text in given.items():
        name = key.removeprefix(PREFIX)
        if name not in hints:
            elsewhere = " (submitit_slurm has it)" if name in typing.get_type_hints(SlurmLauncher) else ""
            problems.append(f"{text}: the launcher has no setting {name!r}{elsewhere or nearest(name, hints)}")
            continue
        try:
            values[name] = _checked(_value(text), hints[name], text=text)
        except LightComputeError as error:
            problems.append(str(error))
    if not problems:
        try:
            return kind(**values)
        except LightComputeError as error:
            problems.append(str(error))
    raise ConfigError("\n".join(problems))


def _value(text: str) -> Any:
    """What Hydra's grammar reads: numbers, null, [lists], {dictionaries}; anything else is a string."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    bare = text.lstrip("+")
    try:
        override = OverridesParser.create().parse_override(bare)
    except HydraException:
        return bare.partition("=")[2]
    if override.is_sweep_override():
        raise ConfigError(f"{text}: needed one value; what is swept is the run's settings")
    return override.value()


def _checked(value: Any, hint: Any, *, text: str) -> Any:
    from pydantic import ConfigDict, TypeAdapter, ValidationError

    if typing.get_type_hints(LocalLauncher).get("name") == hint and isinstance(value, (int, float)):
        value = text.partition("=")[2]  # partition=2024 is a name, although the grammar reads a number
    try:
        return TypeAdapter(hint, config=ConfigDict(strict=True)).validate_python(value)
    except ValidationError as error:
        needs = "; or ".join(dict.fromkeys(item["msg"].removeprefix("Input should be ") for item in error.errors()))
        raise ConfigError(f"{text}: needed {needs}") from error


def settings_for_submitit(launcher: LocalLauncher, *, name: str, shared: Sequence[str]) -> dict[str, Any]:
    """Parameters as submitit's AutoExecutor takes them: what all clusters share by name, the rest with a prefix.

    Args:
        launcher: As typed.
        name: Of the run.
        shared: Names that need no prefix.
    """
    ours = ("submitit_folder", "wait_for_completion", "max_num_timeout", "timeout_min", "name")
    found: dict[str, Any] = {"timeout_min": launcher.minutes, "name": launcher.name or name}
    for one in dataclasses.fields(launcher):
        value = getattr(launcher, one.name)
        if one.name in ours or value is None or (launcher.cluster == "local" and one.name == "array_parallelism"):
            continue
        found[one.name if one.name in shared else f"{launcher.cluster}_{one.name}"] = value
    if isinstance(launcher, SlurmLauncher):
        found["slurm_additional_parameters"] = {"requeue": True} | launcher.additional_parameters
        if launcher.cpus_per_task is not None:  # srun does not take it over from sbatch in every version
            found["slurm_srun_args"] = [f"--cpus-per-task={launcher.cpus_per_task}"]
    return found
