"""`trainer.patience`: end a run whose validations have stopped getting better. It counts; saving is `saving`'s work."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, Any

from lightning import Callback, LightningModule, Trainer

from litgpt_core.training.metrics import MetricsRecorder
from litgpt_core.training.module import TrainingModule

if TYPE_CHECKING:
    from litgpt_core.training.plan import Plan

logger = logging.getLogger(__name__)


class EarlyStop(Callback):
    """Ends the run as finished after `patience` validations in a row that are not better than the best before them.

    Args:
        recorder: Knows which validation is not part of the curve.
        patience: How many; None counts nothing.
        min_delta: What a loss must be below the best by, nats per token.

    Attributes:
        stopped_step: The step after which the run was ended, None while it was not.
    """

    def __init__(self, *, recorder: MetricsRecorder, patience: int | None, min_delta: float) -> None:
        self.recorder, self.patience, self.min_delta = recorder, patience, min_delta
        self.best, self.waited = math.inf, 0
        self.stopped_step: int | None = None

    @classmethod
    def of(cls, plan: Plan, *, recorder: MetricsRecorder) -> EarlyStop:
        """As the settings of a run say."""
        settings = plan.resolved.config.trainer.stop
        return cls(recorder=recorder, patience=settings.patience, min_delta=settings.min_delta)

    def state_dict(self) -> dict[str, Any]:
        """Best loss so far and how many validations have passed since."""
        return {"best": self.best, "waited": self.waited}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting where the checkpoint stood."""
        self.best, self.waited = state_dict["best"], state_dict["waited"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A run that was killed after its last checkpoint, but before its end, is still over."""
        self._stop_if_over(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count."""
        assert isinstance(pl_module, TrainingModule)
        if self.recorder.closed or trainer.state.fn != "fit":
            return
        if pl_module.eval_loss < self.best - self.min_delta:
            self.best, self.waited = pl_module.eval_loss, 0
        else:
            self.waited += 1
        self._stop_if_over(trainer)

    def _stop_if_over(self, trainer: Trainer) -> None:
        if self.patience is None or self.waited < self.patience or trainer.global_step >= trainer.max_steps:
            return
        self.stopped_step = trainer.global_step
        trainer.should_stop = True
        logger.info(
            "ending after step %s: %s validations in a row were not better than %.4f by trainer.min_delta=%g",
            f"{trainer.global_step:,}",
            self.waited,
            self.best,
            self.min_delta,
        )
