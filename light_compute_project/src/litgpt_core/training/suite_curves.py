"""Scores suites of items every so many steps: rows of `evaluation/curve.jsonl`, and curves of the dashboard.

The measuring is passed in (`evaluate/during_training.py`), because evaluation stands above training. It happens between
two optimizer steps, without random numbers, so a run with curves trains to the same weights as one without.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning import Callback, LightningModule, Trainer

from litgpt_core.core.errors import ConfigError
from litgpt_core.model.gpt import GPT
from litgpt_core.training.metrics import MetricsRecorder
from litgpt_core.training.module import TrainingModule
from litgpt_core.training.rows import read_rows
from litgpt_core.training.run_folder import write_text

if TYPE_CHECKING:
    from litgpt_core.training.plan import Plan

logger = logging.getLogger(__name__)

Measure = Callable[[GPT], dict[str, float]]


class SuiteCurves(Callback):
    """Calls the measure on rank 0.

    Args:
        path: The file.
        measure: Model -> numbers by name.
        interval: Optimizer steps between two calls.
        recorder: Its clock leaves the time out.
    """

    def __init__(self, path: Path, *, measure: Measure, interval: int, recorder: MetricsRecorder) -> None:
        self.path, self.measure, self.interval, self.recorder = path, measure, interval, recorder
        self._last = 0

    @classmethod
    def of(cls, plan: Plan, *, measure_of: Callable[[Plan], Measure], recorder: MetricsRecorder) -> SuiteCurves:
        """The curves of a run.

        Raises:
            ConfigError: The model is sharded: no process holds all of it.
        """
        if plan.resolved.shards_model:
            raise ConfigError(
                "evaluation.suites with a sharded model",
                needed="a model that one process holds",
                fix="evaluation.suites=[], and lcp evaluate on its checkpoints",
            )
        interval = plan.resolved.config.evaluation.interval
        path = plan.folder.path / "evaluation" / "curve.jsonl"
        return cls(path, measure=measure_of(plan), interval=interval, recorder=recorder)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Drop rows after the checkpoint that is continued."""
        self._last = trainer.global_step
        if trainer.is_global_zero and self.path.is_file():
            kept = [row for row in read_rows(self.path) if row["step"] <= trainer.global_step]
            write_text(self.path, "".join(json.dumps(row) + "\n" for row in kept))

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Between two steps."""
        if batch_idx % trainer.accumulate_grad_batches == 0 and trainer.global_step % self.interval == 0:
            self._score(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The last step."""
        self._score(trainer, pl_module)

    def _score(self, trainer: Trainer, pl_module: LightningModule) -> None:
        step = trainer.global_step
        if step <= self._last or not trainer.is_global_zero:
            return
        self._last = step
        assert isinstance(pl_module, TrainingModule)
        with torch.compiler.set_stance("force_eager"):  # other shapes would be compiled anew
            found = self.measure(pl_module.network)
        self.path.parent.mkdir(exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **found}) + "\n")
        for dashboard in trainer.loggers:
            dashboard.log_metrics({f"suites/{name}": value for name, value in found.items()}, step=step)
        shown = ", ".join(f"{name} {value:.3f}" for name, value in found.items() if name.endswith("accuracy"))
        logger.info("step %d: %s", step, shown)
        self.recorder.pause()
