"""When checkpoints are written, which are kept, and what makes a resumed run equal to an undisturbed one.

Everything is saved at one moment: when the next step is about to begin. Then the last step is complete, with its
validation and its row of metrics, and the Trainer's counters, the data position and the random states all describe the
same boundary.
"""

from __future__ import annotations

import logging
import math
import time
from typing import TYPE_CHECKING, Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch.distributed.tensor import DTensor

from litgpt_core import checkpoint
from litgpt_core.core.durations import seconds_of
from litgpt_core.core.errors import Interrupted, LightComputeError
from litgpt_core.distributed.process_group import ProcessGroup
from litgpt_core.distributed.requeue import request_requeue
from litgpt_core.training.budget import Budget, Meter
from litgpt_core.training.metrics import MetricsRecorder, non_finite
from litgpt_core.training.module import TrainingModule
from litgpt_core.training.random_state import random_state, take_own_state
from litgpt_core.training.run_folder import RunFolder
from litgpt_core.training.stop import StopRequest
from litgpt_core.training.trainer import dump_state

if TYPE_CHECKING:
    from litgpt_core.training.plan import Plan

logger = logging.getLogger(__name__)

OVER = 1000
"""What rank 0 tells the others between two steps when time or money is used up; numbers below are signals."""


class CheckpointSaver(Callback):
    """Saves at step boundaries, keeps `last`, `best` and the newest few, and obeys a stop request.

    Args:
        folder: The run.
        recorder: Its rows are written before a checkpoint that includes their step.
        stop: Looked at between steps.
        group: All processes: they save and stop at the same step.
        meter: What the run has used of its time and money.
        seed: For the streams of processes that a checkpoint does not know.
        save_interval: Optimizer steps between checkpoints.
        save_every_s: Seconds after which a checkpoint is due whatever the step, or None.
        keep: How many step checkpoints stay besides `best` and `last`.
        stop_after: Optimizer step after which this session ends, or None.
        together: Neighbouring processes that compute each block together, with the same random numbers.
    """

    def __init__(
        self,
        folder: RunFolder,
        *,
        recorder: MetricsRecorder,
        stop: StopRequest,
        group: ProcessGroup,
        meter: Meter,
        seed: int,
        save_interval: int,
        keep: int,
        save_every_s: float | None = None,
        stop_after: int | None = None,
        together: int = 1,
    ) -> None:
        self.folder, self.recorder, self.stop = folder, recorder, stop
        self.group, self.meter, self.seed = group, meter, seed
        self.save_interval, self.keep, self.stop_after = save_interval, keep, stop_after
        self.save_every_s, self.together = save_every_s, together
        self.best_val_loss, self.best_step = math.inf, 0
        self._saved_step, self._saved_at = 0, time.perf_counter()
        self._improved = False
        self._random_states: list[dict[str, Any]] | None = None
        self._step_began, self._step_s, self._save_s = 0.0, 0.0, 0.0

    @classmethod
    def of(cls, plan: Plan, *, recorder: MetricsRecorder, stop: StopRequest) -> CheckpointSaver:
        """The saver of a run."""
        settings = plan.resolved.config.trainer
        every = settings.checkpointing.save_every
        return cls(
            plan.folder,
            recorder=recorder,
            stop=stop,
            group=plan.group,
            meter=Meter(Budget.of(settings.budget, devices=plan.group.world.world_size), started=plan.started),
            seed=plan.resolved.config.seed,
            save_interval=settings.checkpointing.save_interval,
            save_every_s=None if every is None else seconds_of(every),
            keep=settings.checkpointing.keep_checkpoints,
            stop_after=settings.stop.stop_after,
            together=plan.resolved.tensor_parallel,
        )

    # ---- state ----

    def state_dict(self) -> dict[str, Any]:
        """Best value so far, what is used up, and every process's random state; collective."""
        return {
            "best_val_loss": self.best_val_loss,
            "best_step": self.best_step,
            "random": self.group.gather(random_state())[:: self.together],
            "used": self.meter.state_dict(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The random states are put back later, at the boundary they were taken at."""
        self.best_val_loss, self.best_step = state_dict["best_val_loss"], state_dict["best_step"]
        self._random_states = state_dict["random"]
        if "used" in state_dict:  # checkpoints of earlier versions lack it
            self.meter.load_state_dict(state_dict["used"])

    @property
    def has_best(self) -> bool:
        """Whether there was a validation."""
        return math.isfinite(self.best_val_loss)

    # ---- hooks ----

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """From here on a signal waits for the step to end."""
        self._saved_step, self._saved_at = trainer.global_step, time.perf_counter()
        self.stop.install()
        self.stop.training = True

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Between two optimizer steps: save if it is time, stop if asked."""
        if self._random_states is not None:
            world = self.group.world
            take_own_state(
                self._random_states,
                rank=world.rank // self.together,
                world_size=world.world_size // self.together,
                seed=self.seed,
                step=trainer.global_step,
            )
            self._random_states = None
        if batch_idx % trainer.accumulate_grad_batches:
            return
        now = time.perf_counter()
        self._step_s, self._step_began = now - (self._step_began or now), now
        step = trainer.global_step
        enough = self.stop_after is not None and step >= self.stop_after
        order = self.group.all_reduce_max(self._order())
        due = step % self.save_interval == 0 or self._improved or self._is_late(now)
        if step > self._saved_step and (due or enough or order):
            self.save(trainer)
        if order or enough:
            ending = self._ending(order, step=step)
            ending.silent = not self.group.is_rank_zero
            raise ending

    def _is_late(self, now: float) -> bool:
        """Whether `save_every` has passed since the last checkpoint, by the clock of the first process."""
        if self.save_every_s is None:
            return False
        late = self.group.is_rank_zero and now - self._saved_at >= self.save_every_s
        return bool(self.group.all_reduce_max(int(late)))

    def _order(self) -> int:
        """This process's reason to stop now: a signal's number, `OVER`, or 0."""
        if self.stop.signal:
            return int(self.stop.signal)
        spent = self.group.is_rank_zero and self.meter.exhausted(reserve_s=self._step_s + self._save_s)
        return OVER if spent else 0

    def _ending(self, order: int, *, step: int) -> Interrupted:
        where = f"after step {step}; everything is saved in {self.folder.path}"
        if not order:
            return Interrupted(
                f"trainer.stop_after={self.stop_after}: ended {where}",
                fix="the same command with run.resume=true and without trainer.stop_after continues exactly there",
                exit_code=0,
            )
        if order >= OVER:
            spent = self.meter.exhausted(reserve_s=math.inf)
            assert spent is not None
            return Interrupted(f"{spent.reason}: ended {where}", fix=spent.fix, exit_code=0)
        self.stop.take(order)
        assert self.stop.signal is not None
        if self.stop.is_queues:
            request_requeue()
        return Interrupted(
            f"stopped by {self.stop.signal.name} {where}",
            fix="the same command with run.resume=true continues exactly there",
            exit_code=self.stop.exit_code,
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
        if order := self.group.all_reduce_max(int(self.stop.signal or 0)):  # it came during the last step
            ending = self._ending(order, step=trainer.global_step)
            ending.silent = not self.group.is_rank_zero
            raise ending

    def save(self, trainer: Trainer) -> None:
        """Write `step-…`, move `last` (and `best`), prune."""
        began = time.perf_counter()
        self.recorder.wait_for_device(trainer)
        self._refuse_non_finite(trainer)
        self.recorder.flush(trainer)
        step = trainer.global_step
        directory = self.folder.checkpoints / checkpoint.step_name(step)
        state = dump_state(trainer)
        problem: Exception | None = None
        try:
            trainer.strategy.save_checkpoint(state, directory)
            if self.group.is_rank_zero:
                checkpoint.link(directory, "last")
                if self._improved:
                    checkpoint.link(directory, "best")
                checkpoint.prune(self.folder.checkpoints, keep=self.keep)
        except LightComputeError as error:
            problem = error
        self.group.wait_for(0)  # writing a large model may take longer than a collective operation waits
        self.group.raise_together(problem)
        self._save_s = time.perf_counter() - began
        self._saved_step, self._saved_at, self._improved = step, time.perf_counter(), False
        self.recorder.pause()
        logger.debug("saved %s", directory)

    def _refuse_non_finite(self, trainer: Trainer) -> None:
        """Never let a broken model replace good checkpoints; every process looks at its part of the weights."""
        parts = [p.to_local() if isinstance(p, DTensor) else p for p in trainer.lightning_module.parameters()]
        broken = not bool(torch.stack(torch._foreach_norm([p for p in parts if p.numel()])).isfinite().all())
        if self.group.all_reduce_max(int(broken)):
            problem = non_finite("the weights", step=trainer.global_step)
            problem.silent = not self.group.is_rank_zero
            raise problem
