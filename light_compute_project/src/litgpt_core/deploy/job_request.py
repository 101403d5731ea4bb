"""What a run asks of a queue: nodes, tasks, cores, GPUs, memory, time. Checked when it is made; nothing is submitted.

One task is one process of the training, and has one GPU where there are GPUs.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

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
    """Longest time, in SLURM's notation or as 90m, 12h, 2d; None: the partition's limit."""
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    signal_grace: int = 120
    """Seconds before the end at which the run is told to save and leave."""
    max_requeues: int = 200
    """How often the job may return to the queue by itself."""
    setup: Sequence[str] = ()
    """Shell lines before the training starts, such as `module load cuda`."""
    sbatch: Sequence[str] = ()
    """Options of sbatch that have no name here, such as `--exclusive`."""

    def __post_init__(self) -> None:
        problems = [
            f"--{name.replace('_', '-')}={value}: needed a whole number of at least {least}"
            for name, least in (("nodes", 1), ("tasks_per_node", 1), ("cpus_per_task", 1), ("max_requeues", 0))
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
        """`time`; None where the partition decides."""
        return None if self.time is None else seconds_of(self.time)

    def _check_gpus(self) -> None:
        if self.gpus_per_node is None:
            return
        found = re.fullmatch(r"(?:[A-Za-z0-9_.-]+:)?([1-9]\d*)", self.gpus_per_node)
        if found is None:
            raise ConfigError(f"--gpus-per-node={self.gpus_per_node!r}: needed a number, or KIND:NUMBER such as a100:4")
        if int(found[1]) != self.tasks_per_node:
            raise ConfigError(
                f"--gpus-per-node={self.gpus_per_node} with {self.tasks_per_node} tasks per node: "
                f"needed one task for each GPU: leave --tasks-per-node away"
            )

    def _check_memory(self) -> None:
        if self.mem is not None and not re.fullmatch(r"(?i)\d+([KMGT]B?)?", self.mem):
            raise ConfigError(f"--mem={self.mem!r}: needed a whole number and K, M, G or T: --mem=64G")

    def _check_times(self) -> None:
        given = f"--signal-grace={self.signal_grace}"
        if not 1 <= self.signal_grace <= LONGEST_GRACE_S:
            raise ConfigError(f"{given}: needed whole seconds from 1 to {LONGEST_GRACE_S}")
        if (seconds := self.seconds) is not None and seconds <= self.signal_grace + SOONER_S:
            raise ConfigError(
                f"--time={self.time} leaves no time to train before {given}: SLURM's warning may come {SOONER_S} s "
                f"sooner than that; needed more than {self.signal_grace + SOONER_S} s"
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
                problems.append(f"--sbatch={option}: this is decided by slurm.py's own options; see slurm.py --help")
        if problems:
            raise ConfigError("\n".join(problems))


def seconds_of(text: str) -> int:
    """A time as SLURM writes it, or with units.

    `90` minutes, `90:30` minutes and seconds, `12:00:00` hours, `2-12`, `2-12:30` and `2-12:30:00` days; or `90m`,
    `12h`, `2d`, `1d12h`.

    Raises:
        ConfigError: It is none of these, or no time at all.
    """
    units = re.fullmatch(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?", text)
    slurm = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d\d?))?(?::(\d\d?))?", text)
    seconds = 0
    if units is not None:
        days, hours, minutes = (int(part or 0) for part in units.groups())
        seconds = days * 86_400 + hours * 3600 + minutes * 60
    elif slurm is not None:
        parts = [int(part) for part in slurm.groups()[1:] if part is not None]
        weights = {1: (60,), 2: (60, 1), 3: (3600, 60, 1)}[3 if slurm[1] else len(parts)]  # after days come hours
        seconds = int(slurm[1] or 0) * 86_400 + sum(n * weight for n, weight in zip(parts, weights, strict=False))
    if seconds <= 0:
        raise ConfigError(f"--time={text!r}: needed minutes, HOURS:MINUTES:SECONDS, DAYS-HOURS, or 90m, 12h, 2d")
    return seconds


def slurm_time(seconds: int) -> str:
    """Seconds in SLURM's longest notation: `1-02:03:04`."""
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    return f"{days}-{hours:02}:{minutes:02}:{seconds:02}"


def slurm_memory(text: str) -> str:
    """`64GB` as SLURM likes it: `64G`."""
    return text.upper().removesuffix("B")
