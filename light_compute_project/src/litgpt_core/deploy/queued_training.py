"""The settings of a training that runs as a job: those that the job adds, and those that the user must not give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from litgpt_core.config.compose import TrainConfig
from litgpt_core.core.command_line import child_command
from litgpt_core.core.errors import ConfigError
from litgpt_core.data.batch_rule import check_batch


def own_overrides(overrides: Sequence[str], *, decided: Mapping[str, str]) -> list[str]:
    """The given overrides, without `run.resume`, which a queued run always has.

    Args:
        overrides: As given on the command line.
        decided: Settings that the job decides, each with the name of what to say instead.

    Raises:
        ConfigError: A setting would be ignored.
    """
    problems, kept = [], []
    for text in overrides:
        key, _, value = text.lstrip("+").partition("=")
        if key in decided:
            problems.append(f"{text}: in a job this follows from {decided[key]}")
        elif key == "run.resume" and value not in ("auto", "true"):
            problems.append(f"{text}: a requeued job has to continue its run: remove run.resume")
        elif key != "run.resume":
            kept.append(text)
    if problems:
        raise ConfigError("\n".join(problems))
    return kept


def job_overrides(own: Sequence[str], *, devices: int | None, nodes: int, gpus: bool) -> list[str]:
    """The user's settings and the queue's.

    Args:
        own: As `own_overrides` returns them.
        devices: Processes that the queue starts on each node; None: it starts one, which may start others.
        nodes: Machines.
        gpus: Whether the job has GPUs: then a run that finds none fails, instead of training on the CPU for days.
    """
    found = [*own]
    if devices is not None:
        found += [f"trainer.devices={devices}", f"trainer.num_nodes={nodes}"]
    if gpus and not any(text.lstrip("+").startswith("trainer.accelerator=") for text in own):
        found.append("trainer.accelerator=cuda")
    return found


def train_command(overrides: Sequence[str]) -> list[str]:
    """The whole command line of a training that continues what is there."""
    return child_command("train", *overrides, "run.resume=auto")


def check_fit(config: TrainConfig, *, world_size: int, cores: int | None, option: str) -> None:
    """Refuse a config that this many processes with this many cores cannot carry out.

    Args:
        config: Of the run.
        world_size: Processes.
        cores: Of each; None: not known.
        option: Option that requests the cores.

    Raises:
        ConfigError: With the numbers that do not fit.
    """
    batch, threads, problems = config.trainer.batch, config.trainer.hardware.threads, []
    if batch.micro_batch_size != "auto":
        try:
            check_batch(
                global_batch_size=batch.global_batch_size,
                micro_batch_size=batch.micro_batch_size,
                world_size=world_size,
            )
        except ConfigError as error:
            problems.append(str(error))
    for name, wanted, what in (
        ("num_workers", batch.num_workers, "loader workers"),
        ("threads", threads or 0, "threads"),
    ):
        if cores is not None and wanted > cores:
            problems.append(
                f"trainer.{name}={wanted}, but {option}={cores}: {what} would share cores: {option}={wanted}"
            )
    if problems:
        raise ConfigError("\n".join(problems))


def cores_needed(config: TrainConfig) -> int:
    """Cores of each process where nobody says a number: its threads, or a reader of data beside each loader worker."""
    return max(config.trainer.hardware.threads or 2, config.trainer.batch.num_workers + 1)
