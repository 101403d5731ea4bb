"""The run folder `runs/<run.name>/`: what it may hold, when it may be used again, and where a resumed run starts.

Every file of a run has its one name here. Reading and writing checkpoints is `checkpoint`'s work.
"""

from __future__ import annotations

import json
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from litgpt_core import checkpoint
from litgpt_core.config.diff import differences, without_empty_sections
from litgpt_core.config.train_config import TrainConfig, dump
from litgpt_core.config.trainer import StopSettings
from litgpt_core.core.directories import clean_temporary, remove_directory
from litgpt_core.core.errors import CheckpointError, ConfigError, LightComputeError
from litgpt_core.core.parsing import table_in
from litgpt_core.core.redaction import redact_values
from litgpt_core.core.replaceable import refuse_foreign
from litgpt_core.data.recorded_settings import LOCATIONS, with_later_settings

logger = logging.getLogger(__name__)

RESUME_FILE = "resume.pt"
"""Trainer state in a step checkpoint, next to the weights."""

FIXED_WHEN_RESUMING = (
    "seed",
    "init_from",
    "lora",
    "qat",
    "distill",
    "model",
    "tokenizer",
    "data",
    "optim",
    "trainer.global_batch_size",
    "trainer.loss_chunk_size",
    "trainer.max_norm",
    "trainer.z_loss",
    "trainer.label_smoothing",
)
"""Sections and keys that decide the trajectory: a resumed run with another value would be a different run under the
same name.
"""


@dataclass(frozen=True)
class RunFolder:
    """Paths of one run, and the checkpoint it continues from."""

    path: Path
    resume_from: Path | None = None

    @property
    def checkpoints(self) -> Path:
        """Folder of step checkpoints and the links `last` and `best`."""
        return self.path / "checkpoints"

    @property
    def final(self) -> Path:
        """The LitGPT directory that a finished run leaves."""
        return self.path / "final"

    @property
    def config(self) -> Path:
        """The composed config, as plain YAML."""
        return self.path / "config.yaml"

    @property
    def environment(self) -> Path:
        """What the machine and the packages were."""
        return self.path / "environment.json"

    @property
    def code_diff(self) -> Path:
        """How the code differed from its commit; absent where it did not."""
        return self.path / "code.diff"

    @property
    def log(self) -> Path:
        """What was said while it ran, as JSON lines."""
        return self.path / "log.jsonl"

    @property
    def metrics(self) -> Path:
        """One row per logged step."""
        return self.path / "metrics.jsonl"

    @property
    def summary(self) -> Path:
        """The closing numbers."""
        return self.path / "summary.json"

    @property
    def samples(self) -> Path:
        """What the finished model says."""
        return self.path / "samples.txt"

    @property
    def before(self) -> Path:
        """What the model was worth before the first step of fine-tuning."""
        return self.path / "before.json"

    @property
    def comparison(self) -> Path:
        """Before and after, side by side, for people."""
        return self.path / "before_after.md"

    @property
    def lora(self) -> Path:
        """Adapters alone, as `litgpt finetune lora` leaves them."""
        return self.path / "lora"

    @property
    def compressed(self) -> Path:
        """The packed codes that quantization-aware training leaves."""
        return self.path / "compressed"

    @property
    def picture(self) -> Path:
        """The loss curve."""
        return self.path / "loss.png"

    def read_config(self) -> dict[str, Any]:
        """What `config.yaml` holds, or nothing if it cannot be read."""
        return table_in(self.config)

    def read_environment(self) -> dict[str, Any]:
        """What `environment.json` holds, or nothing if it is absent or incomplete."""
        return table_in(self.environment)

    def read_before(self) -> dict[str, Any]:
        """What `before.json` holds, or nothing if it is absent or incomplete."""
        return table_in(self.before)

    def read_summary(self) -> dict[str, Any]:
        """What `summary.json` holds, or nothing if it is absent or incomplete."""
        return table_in(self.summary)


def open_run(config: TrainConfig) -> RunFolder:
    """Find out whether the run folder may be used, and where to continue. Nothing is written yet: see `claim_run`.

    Raises:
        ConfigError: The folder is used and `run.resume` is false; or it is resumed with settings that make it another
            run; or
            `run.resume=true` finds nothing to continue.
        LightComputeError: The folder cannot be written.
    """
    path, resume = config.run.folder, config.run.resume
    used = is_used(path)
    if used and not resume:
        raise ConfigError(
            f"the run folder {path} is in use",
            needed="a new name, or run.resume to continue the existing run",
            fix=f"run.resume=true to continue it, or another name: run.name={config.run.name}-2",
        )
    if resume is True and not used:
        raise ConfigError(
            f"run.resume=true, but {path} holds no run to continue",
            needed=f"a run folder with config.yaml; {_runs_beside(path)}",
            fix="run.resume=auto to start where nothing is there, or run.name=<an existing run>",
        )
    _make_writable(path)
    folder = RunFolder(path)
    if used:
        refuse_another_run(folder, config)
        for product in (folder.final, folder.lora, folder.compressed):
            refuse_foreign(product)
        clean_temporary(folder.checkpoints)
        found = checkpoint.newest_valid(folder.checkpoints)
        if found is None:
            _refuse_to_overwrite_incomplete(folder, config)
            logger.warning("%s has no checkpoint yet: starting from the first step", path)
        folder = RunFolder(path, resume_from=found)
    return folder


def claim_run(folder: RunFolder, config: TrainConfig) -> None:
    """Write the config into the run folder: from here on a run lives there, and it is not finished."""
    if folder.final.exists():
        remove_directory(folder.final)
        folder.summary.unlink(missing_ok=True)
    write_text(folder.config, dump(redact_values(config.plain)))


def is_finished(folder: RunFolder, settings: StopSettings) -> bool:
    """Whether nothing is left to do: the last step is saved, and so is everything that comes after it.

    A run that `trainer.patience` ended is finished unless it is resumed with another patience.
    """
    step = None if folder.resume_from is None else checkpoint.step_of(folder.resume_from)
    early_stop = {"patience": settings.patience, "min_delta": settings.min_delta}
    return step is not None and has_reached_end(
        folder, max_steps=settings.max_steps, early_stop=early_stop, last_step=step
    )


def has_reached_end(
    folder: RunFolder, *, max_steps: int, early_stop: dict[str, Any], last_step: int | None = None
) -> bool:
    """Whether a run folder holds a finished run: the closing files, and the last step or an early stop.

    Args:
        folder: Of the run.
        max_steps: That are requested.
        early_stop: `patience` and `min_delta` as requested; a run that stopped early under others is not finished.
        last_step: That was reached; None: that of the closing summary.
    """
    summary = folder.read_summary()
    if not summary or not folder.final.is_dir():
        return False
    if last_step is None:
        final = summary.get("final")
        step = final.get("step") if isinstance(final, dict) else None
        last_step = step if isinstance(step, int) else 0
    return last_step >= max_steps or (bool(summary.get("early_stop")) and summary["early_stop"] == early_stop)


def is_used(path: Path) -> bool:
    """Whether anything in the folder would be missed. What a start that failed early leaves behind would not."""
    if not path.is_dir():
        return path.exists()
    leftovers = {"config.yaml", "environment.json", "code.diff", "before.json", "wandb"}
    for entry in path.iterdir():
        empty = entry.is_file() and entry.stat().st_size == 0
        if entry.name not in leftovers and not empty:
            return True
    return False


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write JSON so that a reader sees the old file or the new one, never half of one."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a text file through a temporary name."""
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    temporary.write_text(text, encoding="utf-8", errors="backslashreplace")
    temporary.replace(path)


def _make_writable(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / f".write-test-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise LightComputeError(
            f"the run folder {path} cannot be written: {error.strerror or error}",
            needed="a folder that this user may write to, on a disk with room",
            fix="run.dir=/a/folder/of/yours",
        ) from error


def _runs_beside(path: Path) -> str:
    names = sorted(p.parent.name for p in path.parent.glob("*/config.yaml"))[:10]
    return f"there are: {', '.join(names)}" if names else f"{path.parent} holds no runs"


def _refuse_to_overwrite_incomplete(folder: RunFolder, config: TrainConfig) -> None:
    incomplete = sorted(p.name for p in folder.checkpoints.glob("step-*")) if folder.checkpoints.is_dir() else []
    if incomplete:
        raise CheckpointError(
            f"none of the checkpoints in {folder.checkpoints} is complete: {', '.join(incomplete)}",
            needed="one complete checkpoint to continue from; starting over would overwrite what is left of these",
            fix=f"run.name={config.run.name}-2 for a new run, or remove {folder.checkpoints} to start over here",
        )


def refuse_another_run(folder: RunFolder, config: TrainConfig) -> None:
    """Whether what lives in a used folder may be continued with these settings; warns about those that may change.

    Raises:
        ConfigError: With what makes it another run.
    """
    before = folder.read_config()
    if not before:
        raise ConfigError(
            f"{folder.config} cannot be read, so nobody knows what run this is",
            needed="the settings the run was started with",
            fix=f"run.name={config.run.name}-2 for a new run",
        )
    plain = without_empty_sections(redact_values(config.plain))  # as it was written
    before = without_empty_sections(redact_values(before))
    changed = differences(with_later_settings(before, plain), plain)
    fatal = [line for key, line in changed if decides_trajectory(key)]
    if fatal:
        raise ConfigError(
            f"{folder.path} cannot be resumed with other settings:\n    " + "\n    ".join(fatal),
            needed="the settings it was started with (its config.yaml)",
            fix=f"the same command as before with run.resume=true, or a new run: run.name={config.run.name}-2",
        )
    epochs = (config.plain.get("trainer") or {}).get("epochs")
    for key, line in changed:
        if key == "trainer.max_steps" and epochs is not None:
            continue  # it follows from `trainer.epochs` once the data is known
        if line == f"{key}: (absent) -> None":
            continue  # a setting that is newer than the run, and switched off
        if not key.startswith(("run.", "logger.")):
            logger.warning("resuming with a changed setting: %s", line)


def decides_trajectory(key: str) -> bool:
    """Whether another value of this dotted key makes it another run."""
    if ".".join(key.split(".")[:2]) in {f"data.{name}" for name in LOCATIONS}:
        return False  # where the corpus lies may change; what it is, the fingerprint tells
    return any(key == fixed or key.startswith(f"{fixed}.") for fixed in FIXED_WHEN_RESUMING)
