"""When checkpoints are written, which are kept, and what makes a resumed run equal to an undisturbed one.

Everything is saved at one moment: when the next step is about to begin. Then the last step is complete, with its
validation and its row of metrics, and the Trainer's counters, the data position and the random states all describe the
same boundary.
"""

from __future__ import annotations

import logging
import math
import random
from typing import Any

import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer

from litgpt_core import checkpoint
from litgpt_core.errors import Interrupted
from litgpt_core.training.metrics import MetricsRecorder, non_finite
from litgpt_core.training.module import TrainingModule
from litgpt_core.training.run_folder import RunFolder
from litgpt_core.training.stop import StopRequest

logger = logging.getLogger(__name__)


class CheckpointSaver(Callback):
    """Saves at step boundaries, keeps `last`, `best` and the newest few, and obeys a stop request.

    Args:
        folder: The run.
        recorder: Its rows are written before a checkpoint that includes their step.
        stop: Looked at between steps.
        save_interval: Optimizer steps between checkpoints.
        keep: How many step checkpoints stay besides `best` and `last`.
        stop_after: Optimizer step after which this sitting ends, or None.
    """

    def __init__(
        self,
        folder: RunFolder,
        *,
        recorder: MetricsRecorder,
        stop: StopRequest,
        save_interval: int,
        keep: int,
        stop_after: int | None = None,
    ) -> None:
        self.folder, self.recorder, self.stop = folder, recorder, stop
        self.save_interval, self.keep, self.stop_after = save_interval, keep, stop_after
        self.best_val_loss, self.best_step = math.inf, 0
        self._saved_step = 0
        self._improved = False
        self._random_state: dict[str, Any] | None = None

    # ---- state ----

    def state_dict(self) -> dict[str, Any]:
        """Best value so far and every random state."""
        return {"best_val_loss": self.best_val_loss, "best_step": self.best_step, "random": _random_state()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The random states are put back later, at the boundary they were taken at."""
        self.best_val_loss, self.best_step = state_dict["best_val_loss"], state_dict["best_step"]
        self._random_state = state_dict["random"]

    @property
    def has_best(self) -> bool:
        """Whether there was a validation."""
        return math.isfinite(self.best_val_loss)

    # ---- hooks ----

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """From here on a signal waits for the step to end."""
        self._saved_step = trainer.global_step
        self.stop.install()
        self.stop.training = True

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Between two optimizer steps: save if it is time, stop if asked."""
        if self._random_state is not None:
            _set_random_state(self._random_state)
            self._random_state = None
        if batch_idx % trainer.accumulate_grad_batches:
            return
        step = trainer.global_step
        due = step % self.save_interval == 0 or self._improved
        enough = self.stop_after is not None and step >= self.stop_after
        if step > self._saved_step and (due or enough or self.stop.signal):
            self.save(trainer)
        if self.stop.signal:
            raise Interrupted(
                f"stopped by {self.stop.signal.name} after step {step}; everything is saved in {self.folder.path}",
                fix="the same command with run.resume=true continues exactly there",
                exit_code=self.stop.exit_code,
            )
        if enough:
            raise Interrupted(
                f"ended after step {step}, as trainer.stop_after={self.stop_after} asks; "
                f"everything is saved in {self.folder.path}",
                fix="the same command with run.resume=true and without trainer.stop_after continues exactly there",
                exit_code=0,
            )

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remember whether this step is the best so far."""
        assert isinstance(pl_module, TrainingModule)
        if self.recorder.closed or not pl_module.eval_loss < self.best_val_loss:
            return
        self.best_val_loss, self.best_step = pl_module.eval_loss, trainer.global_step
        directory = self.folder.checkpoints / checkpoint.step_name(trainer.global_step)
        if trainer.state.fn == "fit":
            self._improved = True  # `best` moves with this step's checkpoint
        elif trainer.is_global_zero and directory.is_dir():
            checkpoint.link(directory, "best")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The last step's checkpoint."""
        if trainer.global_step > self._saved_step:
            self.save(trainer)

    def save(self, trainer: Trainer) -> None:
        """Write `step-…`, move `last` (and `best`), prune."""
        _refuse_non_finite(trainer)
        self.recorder.flush(trainer)
        step = trainer.global_step
        directory = self.folder.checkpoints / checkpoint.step_name(step)
        trainer.save_checkpoint(directory)
        if trainer.is_global_zero:
            checkpoint.link(directory, "last")
            if self._improved:
                checkpoint.link(directory, "best")
            checkpoint.prune(self.folder.checkpoints, keep=self.keep)
        self._saved_step, self._improved = step, False
        self.recorder.pause()
        logger.debug("saved %s", directory)


def _refuse_non_finite(trainer: Trainer) -> None:
    """Never let a broken model replace good checkpoints."""
    norms = torch.stack(torch._foreach_norm(list(trainer.lightning_module.parameters())))
    if not bool(norms.isfinite().all()):
        raise non_finite("the weights", step=trainer.global_step)


def _random_state() -> dict[str, Any]:
    """Plain values and tensors only, so that `torch.load(weights_only=True)` reads them."""
    version, internal, gauss = random.getstate()
    kind, keys, position, has_gauss, cached = np.random.get_state(legacy=True)  # noqa: NPY002
    state: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "python": [version, list(internal), gauss],
        "numpy": [str(kind), np.asarray(keys).tolist(), int(position), int(has_gauss), float(cached)],
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def _set_random_state(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["torch"].cpu())
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    kind, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), position, has_gauss, cached))  # noqa: NPY002
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state_all([s.cpu() for s in state["cuda"]])
