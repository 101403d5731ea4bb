"""Training again, in a fresh process and a temporary folder: what a replay changes in a config, and how it is run."""

from __future__ import annotations

import copy
import logging
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from litgpt_core.audit.causes import look_up
from litgpt_core.audit.overrides import arguments_for
from litgpt_core.audit.recorded import RecordedRun
from litgpt_core.core.command_line import child_command
from litgpt_core.core.errors import Interrupted, LightComputeError

logger = logging.getLogger(__name__)

Plain = dict[str, Any]

NEVER = 1_000_000_000
"""More steps than any run has."""

_PATHS = (("data", "path"), ("tokenizer", "path"), ("model", "path"))


def as_recorded(run: RecordedRun) -> Plain:
    """The run's config with every `auto` replaced by what was decided then: device, precision, compiler, threads,
    micro-batch, processes. Relative paths become absolute where the run's folder is not the current one.
    """
    plain, then = copy.deepcopy(run.plain), run.environment
    trainer = {**plain["trainer"], **run.first_trainer_settings}
    decided = {
        "accelerator": then.get("device"),
        "precision": then.get("precision"),
        "compile": look_up(then, "decisions.compile") if "decisions" in then else run.summary.get("compiled"),
        "cpu_kernels": look_up(then, "decisions.cpu_kernels"),
        "threads": look_up(then, "threads.torch") or then.get("torch_threads"),
        "micro_batch_size": look_up(then, "decisions.micro_batch"),
    }
    trainer |= {key: value for key, value in decided.items() if value is not None}
    if decided["cpu_kernels"] is None and trainer.get("cpu_kernels") in (None, "auto"):
        trainer["cpu_kernels"] = False  # a run from before there were any
    processes = look_up(then, "processes.world_size") or 1
    if processes > 1 or trainer.get("devices", 1) != 1:
        trainer["devices"] = processes
    if trainer.get("num_nodes", 1) != 1:
        trainer["num_nodes"] = 1
    plain["trainer"] = trainer
    base = started_in(run)
    return plain if base == Path.cwd() else with_absolute_paths(plain, base=base)


def with_absolute_paths(plain: Plain, *, base: Path) -> Plain:
    """The same config with relative paths, as far as they lead somewhere from `base`, made absolute."""
    changed = copy.deepcopy(plain)
    for section, key in _PATHS:
        if isinstance(table := changed.get(section), dict) and isinstance(path := table.get(key), str):
            table[key] = _absolute(path, base)
    if isinstance(start := changed.get("init_from"), str):
        changed["init_from"] = _absolute(start, base)
    return changed


def _absolute(path: str, base: Path) -> str:
    return (base / path).resolve().as_posix() if (base / path).exists() and not path.startswith("~") else path


def started_in(run: RecordedRun) -> Path:
    """The folder from which the run's relative paths are meant: above `runs/NAME`, wherever that lies now."""
    settings = run.plain.get("run") or {}
    inside = Path(str(settings.get("dir", "runs"))) / run.name
    here = run.path.resolve()
    if not inside.is_absolute() and here.parts[-len(inside.parts) :] == inside.parts:
        return here.parents[len(inside.parts) - 1]
    noted = run.environment.get("typed_in")
    return Path(noted) if noted and Path(noted).is_dir() else Path.cwd()


def recorded_variables(run: RecordedRun) -> dict[str, str]:
    """Environment variables that the run had and a replay gets: all that were recorded, but none that names a device or
    that the Trainer sets by itself.
    """
    kept = run.environment.get("variables") or {}
    return {key: value for key, value in kept.items() if not key.startswith(("CUDA_", "CUBLAS_", "NCCL_"))}


def shortened(plain: Plain, *, steps: int) -> Plain:
    """The same config, ended after so many steps of the same schedule, and without what no step depends on: samples,
    dashboard, checkpoints on the way, budgets, resuming.
    """
    changed = copy.deepcopy(plain)
    trainer = changed["trainer"]
    trainer |= {"save_interval": NEVER, "save_every": None, "keep_checkpoints": 1, "sample_tokens": 0}
    if steps < trainer["max_steps"]:
        trainer["stop_after"] = steps
    else:
        trainer.pop("stop_after", None)
    for limit in ("max_time", "max_sitting_time", "max_session_time", "max_cost", "cost_per_hour"):
        trainer.pop(limit, None)
    changed["logger"] = {"kind": "none"}
    return changed


class TrainingFolder:
    """A temporary folder in which configs are trained, one process after the other.

    Args:
        folder: Empty; the caller removes it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def train(self, plain: Plain, *, name: str, variables: Mapping[str, str] | None = None) -> RecordedRun:
        """Train a config under another name, and read what it left.

        Args:
            plain: The config; its `run` section is replaced.
            name: Of the run folder.
            variables: Environment variables besides those of this process.

        Raises:
            Interrupted: A signal arrived; the process has ended.
            LightComputeError: The run failed; with the end of its output.
        """
        from litgpt_core.core.child_process import StopSignals
        from litgpt_core.search.child_run import POLL_S, ChildRun

        target = {**plain, "run": {"name": name, "dir": self.folder.as_posix(), "resume": False}}
        command = child_command("train", *arguments_for(target))
        output = self.folder / f"{name}.log"
        with StopSignals() as signals:
            child = ChildRun(command, name=name, folder=self.folder, output=output, environment=variables)
            while (ending := child.poll()) is None:
                child.forward(signals)
                time.sleep(POLL_S)
        if signals.received is not None:
            raise Interrupted(
                f"stopped by {signals.received.name} in the middle of {name}", exit_code=signals.exit_code
            )
        if ending.exit_code and not ending.diverged:
            said = output.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            raise LightComputeError(
                f"{name}: lcp train ended with exit code {ending.exit_code}:\n    " + "\n    ".join(said[-15:]),
                needed="a run that can be trained here and now",
            )
        return RecordedRun.read(self.folder / name)


@contextmanager
def temporary_training() -> Iterator[TrainingFolder]:
    """A temporary folder for training, removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="reproducibility-audit-", ignore_cleanup_errors=True) as folder:
        yield TrainingFolder(Path(folder))
