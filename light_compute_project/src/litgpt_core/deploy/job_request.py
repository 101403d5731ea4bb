"""What a run asks of a queue: nodes, tasks, cores, GPUs, memory, time. Checked when it is made; nothing is submitted.

One task is one process of the training, and has one GPU where there are GPUs.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from litgpt_core.core.durations import Duration, seconds_of
from litgpt_core.core.errors import ConfigError, LightComputeError

LONGEST_GRACE_S = 65_535
"""SLURM's own limit for the time between its warning and the end of a job."""
SOONER_S = 60
"""SLURM may send the warning by so much earlier than was asked."""

_NAME = r"[A-Za-z0-9_.,@+-]+"
_PATTERNS = {
    "partition": (_NAME, "a partition's name, as sinfo lists them; several with commas", "--partition=gpu"),
    "account": (_NAME, "an account's name", "--account=my-project"),
    "qos": (_NAME, "the name of a quality of service", "--qos=long"),
    "constraint": (
        r"[A-Za-z0-9_.,|&*()\[\]=:@+-]+",
        "features of nodes, joined by & or | without spaces",
        "--constraint='a100|h100'",
    ),
}
_WRITTEN_HERE = {
    *("job-name", "chdir", "output", "error", "open-mode", "requeue", "no-requeue", "signal", "array"),
    *("nodes", "ntasks", "ntasks-per-node", "cpus-per-task", "gpus-per-node", "gres", "mem", "time"),
    *("partition", "account", "qos", "constraint"),
}


@dataclass(frozen=True, kw_only=True)
class JobRequest:
    """A job of a queue.

    Raises:
        ConfigError: With every problem that was found.
    """

    nodes: int = 1
    tasks_per_node: int = 1
    """Processes on each node; with `gpus_per_node` one for each GPU."""
    gpus_per_node: str | None = None
    """How many, or KIND:NUMBER as the cluster calls them; None for a job without GPUs."""
    cpus_per_task: int | None = None
    """Cores of each task; None: what the run's config needs."""
    mem: str | None = None
    """Memory of each node, such as 64G; None: the cluster's default."""
    time: str | None = None
    """Time limit of the job, such as 90m, 12h, 2d; None: the partition's limit."""
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    signal_grace: Duration = 120
    """How long before the end the run gets the signal to save and exit."""
    max_requeues: int = 200
    """How often the job may requeue itself."""
    array_parallelism: int | None = None
    """Jobs of a sweep that may run at the same time; None: as many as the cluster allows."""
    setup: Sequence[str] = ()
    """Shell lines before the training starts, such as `module load cuda`."""
    sbatch: Sequence[str] = ()
    """Options of sbatch that have no name here, such as `--exclusive`."""

    def __post_init__(self) -> None:
        problems = [
            f"--{name}={value}: needed a whole number of at least {least}"
            for name, least in (
                ("nodes", 1),
                ("tasks_per_node", 1),
                ("cpus_per_task", 1),
                ("max_requeues", 0),
                ("array_parallelism", 1),
            )
            if (value := getattr(self, name)) is not None and value < least
        ]
        for name, (pattern, needed, example) in _PATTERNS.items():
            if (text := getattr(self, name)) is not None and not re.fullmatch(pattern, text):
                problems.append(f"--{name}={text!r}: needed {needed}: {example}")
        for check in (self._check_gpus, self._check_memory, self._check_times, self._check_lines):
            try:
                check()
            except LightComputeError as error:
                problems.append(str(error))
        if problems:
            raise ConfigError("\n".join(problems))

    @property
    def world_size(self) -> int:
        """Processes of the run."""
        return self.nodes * self.tasks_per_node

    @property
    def seconds(self) -> int | None:
        """`time` in whole seconds; None where the partition decides."""
        return None if self.time is None else math.ceil(seconds_of(self.time))

    @property
    def grace_s(self) -> int:
        """`signal_grace` in whole seconds."""
        return math.ceil(seconds_of(self.signal_grace))

    def _check_gpus(self) -> None:
        if self.gpus_per_node is None:
            return
        found = re.fullmatch(r"(?:[A-Za-z0-9_.-]+:)?([1-9]\d*)", self.gpus_per_node)
        if found is None:
            raise ConfigError(f"--gpus_per_node={self.gpus_per_node!r}: needed a number, or KIND:NUMBER such as a100:4")
        if int(found[1]) != self.tasks_per_node:
            raise ConfigError(
                f"--gpus_per_node={self.gpus_per_node} with {self.tasks_per_node} tasks per node: "
                f"needed one task for each GPU: leave --tasks_per_node away"
            )

    def _check_memory(self) -> None:
        if self.mem is not None and not re.fullmatch(r"(?i)\d+([KMGT]B?)?", self.mem):
            raise ConfigError(f"--mem={self.mem!r}: needed a whole number and K, M, G or T: --mem=64G")

    def _check_times(self) -> None:
        given, problems = f"--signal_grace={self.signal_grace}", []
        for option, value in (("--time", self.time), ("--signal_grace", self.signal_grace)):
            try:
                seconds_of(1 if value is None else value)
            except ConfigError as error:
                problems.append(f"{option}={error}")
        if problems:
            raise ConfigError("\n".join(problems))
        if self.grace_s > LONGEST_GRACE_S:
            raise ConfigError(f"{given}: needed at most {LONGEST_GRACE_S} seconds")
        if (seconds := self.seconds) is not None and seconds <= self.grace_s + SOONER_S:
            raise ConfigError(
                f"--time={self.time} leaves no time to train before {given}: SLURM may send the warning {SOONER_S} s "
                f"earlier than requested; needed more than {self.grace_s + SOONER_S} s, such as --time=1h"
            )

    def _check_lines(self) -> None:
        problems = [
            f"--setup={line!r}: needed one line of shell; repeat --setup for more"
            for line in self.setup
            if "\n" in line
        ]
        for option in self.sbatch:
            found = re.fullmatch(r"--([a-z][a-z-]*)(?:=[^\n]*)?", option)
            if found is None:
                problems.append(f"--sbatch={option!r}: needed a long option of sbatch: --sbatch=--exclusive")
            elif found[1] in _WRITTEN_HERE:
                problems.append(f"--sbatch={option}: this is decided by lcp slurm's own options; see lcp slurm --help")
        if problems:
            raise ConfigError("\n".join(problems))


def slurm_time(seconds: int) -> str:
    """Seconds in SLURM's longest notation: `1-02:03:04`."""
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    return f"{days}-{hours:02}:{minutes:02}:{seconds:02}"


def slurm_memory(text: str) -> str:
    """`64GB` as SLURM likes it: `64G`."""
    return text.upper().removesuffix("B")
