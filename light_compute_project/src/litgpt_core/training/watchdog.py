"""Notices a run that no longer moves: writes every thread's stack and ends the process.

Python's own `faulthandler` does the waiting in a thread that needs no interpreter lock, so that a collective operation
that never returns is noticed too.
"""

from __future__ import annotations

import faulthandler
import logging
import math
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from lightning import Callback, LightningModule, Trainer

if TYPE_CHECKING:
    from litgpt_core.training.plan import Plan

logger = logging.getLogger(__name__)


class Watchdog(Callback):
    """Wound up by every finished batch of training and validation, stopped while a checkpoint is written.

    Args:
        path: Where the stacks go, e.g. `runs/x/hang-rank0.txt`; empty as long as nothing hangs, and removed at the end.
        seconds: Without a batch, after which the process ends with exit code 1; None watches nothing.
    """

    def __init__(self, path: Path, *, seconds: float | None) -> None:
        self.path, self.seconds = path, seconds
        self._file: IO[str] | None = None
        self._wound = 0.0

    @classmethod
    def of(cls, plan: Plan) -> Watchdog:
        """One for this process of a run."""
        settings = plan.resolved.config.trainer.hardware
        path, seconds = plan.folder.path / f"hang-rank{plan.group.world.rank}.txt", settings.hang_timeout
        if seconds is not None and not plan.group.is_single:
            # else the other processes' waiting ends first, without stacks
            seconds = min(seconds, 0.8 * settings.collective_timeout)
        return cls(path, seconds=seconds)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to watch."""
        if self.seconds is not None and self._file is None:
            self._file = self.path.open("w", encoding="utf-8")
            self._file.write(
                f"nothing moved for {self.seconds:g} s (trainer.hang_timeout); where every thread stood:\n"
            )
            self._file.flush()
            self._wind()

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """A batch of training is done."""
        self._wind()

    def on_validation_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any) -> None:
        """A batch of validation is done."""
        self._wind()

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Writing a large model may take longer than any batch; the next batch winds the watch up again."""
        if self._file is not None:
            faulthandler.cancel_dump_traceback_later()
            self._wound = -math.inf

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """What comes now may take its time."""
        self._close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """The run has ended otherwise."""
        self._close()

    def _wind(self) -> None:
        now = time.monotonic()
        if self._file is None or self.seconds is None or now - self._wound < self.seconds / 100:
            return
        self._wound = now
        faulthandler.dump_traceback_later(self.seconds, file=self._file, exit=True)

    def _close(self) -> None:
        if self._file is not None:
            faulthandler.cancel_dump_traceback_later()
            self._file.close()
            self._file = None
            self.path.unlink(missing_ok=True)
