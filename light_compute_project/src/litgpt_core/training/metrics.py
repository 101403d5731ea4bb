"""The run's own log: `metrics.jsonl`, one row per logged step, and the numbers that `summary.json` is made of.

A row is complete before it is written: it waits until the step's validation is over. Rows belong to steps, so a resumed
run first drops those that lie after its checkpoint; no step is missing and none stands twice.
"""

from __future__ import annotations

import json
import math
import statistics
import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor

from litgpt_core.core.errors import Diverged
from litgpt_core.training.module import TrainingModule
from litgpt_core.training.rows import Row, read_rows
from litgpt_core.training.run_folder import write_text

if TYPE_CHECKING:
    from litgpt_core.training.plan import Plan

ROW_KEYS = (
    "step",
    "tokens",
    "train_loss",
    "val_loss",
    "val_bpb",
    "lr",
    "grad_norm",
    "tokens_per_s",
    "mfu",
    "elapsed_s",
)
"""Keys of every row, in order. Losses are nats per token, `val_bpb` bits per byte, `mfu` a fraction; unknown values
are null.
"""


def bits_per_byte(loss: float, *, tokens_per_byte: float) -> float:
    """Bits per byte of text from nats per token: `loss / ln 2 * tokens / bytes`; comparable across tokenizers."""
    return loss / math.log(2) * tokens_per_byte


def non_finite(what: str, *, step: int) -> Diverged:
    """The error for a run that has blown up."""
    return Diverged(
        f"{what} became infinite or not a number by step {step}",
        needed="finite numbers; the last checkpoint still holds them",
        fix="a lower rate (optim.lr=...), a longer warm-up (optim.schedule.lr_warmup_steps=...) "
        "or trainer.precision=32-true",
    )


class MetricsRecorder(Callback):
    """Measures, and writes `metrics.jsonl` and the dashboard's curves.

    Args:
        path: The file.
        tokens_per_step: Tokens of one optimizer step over all devices.
        val_tokens_per_byte: Of the validation split, for bits per byte.
        flops_per_token: Forward and backward.
        peak_flops: Gives that of all devices together, or None if unknown; asked once, at the first row.
        log_interval: Steps between rows.
        max_steps: The last step always gets a row.
    """

    def __init__(
        self,
        path: Path,
        *,
        tokens_per_step: int,
        val_tokens_per_byte: float,
        flops_per_token: float,
        peak_flops: Callable[[], float | None],
        log_interval: int,
        max_steps: int,
    ) -> None:
        self.path, self.tokens_per_step = path, tokens_per_step
        self.val_tokens_per_byte, self.log_interval, self.max_steps = val_tokens_per_byte, log_interval, max_steps
        self.flops_per_token, self._ask_peak = flops_per_token, peak_flops
        self.rows: list[Row] = []
        self.closed = False
        """Set for the validation of the whole split, which is not a row of the curve."""
        self._compile_before = 0.0
        self._first_step_s: float | None = None
        self._pending: Row | None = None
        self._losses: list[Tensor] = []  # of steps since `settle`, this process's share
        self._settled: list[float] = []  # of steps since the last row before that, over all processes
        self._elapsed_before = 0.0
        self._started = time.perf_counter()
        self._mark: float | None = None
        self._busy, self._busy_steps = 0.0, 0
        self._usual_seconds: list[float] = []
        self._last_step = -1
        self._written_step = 0

    @classmethod
    def of(cls, plan: Plan) -> MetricsRecorder:
        """The recorder of a run."""
        return cls(
            plan.folder.metrics,
            tokens_per_step=plan.resolved.tokens_per_step,
            val_tokens_per_byte=plan.data.val_tokens_per_byte,
            flops_per_token=plan.resolved.flops_per_token,
            peak_flops=lambda: plan.peak_of_all,
            log_interval=plan.resolved.config.trainer.evaluation.log_interval,
            max_steps=plan.resolved.config.trainer.stop.max_steps,
        )

    # ---- state: what a checkpoint carries, so that a resumed row equals the undisturbed one ----

    def state_dict(self) -> dict[str, Any]:
        """Losses since the last row, as `settle` left them, and the time spent so far."""
        losses = torch.tensor(self._settled, dtype=torch.float64)
        return {"losses": losses, "elapsed_s": self.elapsed_s, "compile_s": self.compile_s}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the state over; called before `on_train_start`."""
        self._settled = state_dict["losses"].double().tolist()
        self._elapsed_before, self._compile_before = state_dict["elapsed_s"], state_dict["compile_s"]

    @property
    def elapsed_s(self) -> float:
        """Seconds of training, validation and saving, over all sessions."""
        return self._elapsed_before + time.perf_counter() - self._started

    # ---- hooks ----

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Drop rows after the step we start from."""
        self._started = time.perf_counter()
        self._begin(trainer)

    def _begin(self, trainer: Trainer) -> None:
        step = trainer.global_step
        rows = [row for row in read_rows(self.path) if row["step"] <= step] if trainer.is_global_zero else []
        self.rows = trainer.strategy.broadcast(rows)
        if trainer.is_global_zero:
            self._rewrite()
        self._written_step = self.rows[-1]["step"] if self.rows else 0
        if self.rows:  # what the last row took is longer than what its checkpoint knew
            self._elapsed_before = max(self._elapsed_before, self.rows[-1]["elapsed_s"])
        self._last_step = step
        self._mark = None

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """The step before is complete, its validation included: write its row."""
        self.flush(trainer)
        if self._mark is None:
            self._mark = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count a finished optimizer step; prepare a row on logged ones."""
        step = trainer.global_step
        if step == self._last_step:
            return  # in the middle of gradient accumulation
        assert isinstance(pl_module, TrainingModule)
        self._last_step = step
        self._losses.append(pl_module.step_loss.detach())
        due = step % self.log_interval == 0 or step == self.max_steps
        if due:
            self._check_losses(trainer)  # waits for the device, so that the clock below is honest
        self._count_time()
        if due:
            self._pending = self._row(pl_module, step)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Steps whose work the device has not finished yet count as training time, not as validation."""
        if not self.closed:
            self.wait_for_device(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Add the validation to the step's row; also called for the closing validation after training."""
        if self.closed:
            return
        assert isinstance(pl_module, TrainingModule)
        if self._last_step < 0:  # a finished run was resumed: there was nothing left to train
            self._begin(trainer)
        if self._losses:
            self.settle(trainer)
        if self._pending is None and self._last_step not in {row["step"] for row in self.rows[-1:]}:
            self._pending = self._row(pl_module, self._last_step)
        row = self._pending or self.rows.pop()
        row["val_loss"] = pl_module.eval_loss
        row["val_bpb"] = bits_per_byte(pl_module.eval_loss, tokens_per_byte=self.val_tokens_per_byte)
        row["elapsed_s"] = round(self.elapsed_s, 3)
        self._pending = row
        self._mark = None

    @property
    def last_step_is_validated(self) -> bool:
        """Whether the last step's row has a validation."""
        row = self._pending or (self.rows[-1] if self.rows else None)
        return row is not None and row["step"] == self._last_step and row["val_loss"] is not None

    def wait_for_device(self, trainer: Trainer) -> None:
        """Settle the losses of the steps so far; that the device finished them is part of their time. Collective."""
        waiting = bool(self._losses)
        self.settle(trainer)
        if waiting and self._mark is not None:
            now = time.perf_counter()
            if self._busy_steps:
                self._busy += now - self._mark
            elif self._first_step_s is not None:
                self._first_step_s += now - self._mark
            self._mark = now

    def pause(self) -> None:
        """Leave what has just happened (saving) out of the throughput: the step's clock starts now."""
        self._mark = time.perf_counter()

    def flush(self, trainer: Trainer) -> None:
        """Write the waiting row, if there is one."""
        row, self._pending = self._pending, None
        if row is None:
            return
        self.rows.append(row)
        if not trainer.is_global_zero:
            return
        if row["step"] <= self._written_step:
            self._rewrite()
        else:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
        self._written_step = row["step"]
        numbers = {key: value for key, value in row.items() if value is not None and key != "step"}
        for lightning_logger in trainer.loggers:
            lightning_logger.log_metrics(numbers, step=row["step"])

    # ---- helpers ----

    @cached_property
    def peak_flops(self) -> float | None:
        """Of all devices together, or None if unknown."""
        peak = self._ask_peak()
        self._mark = time.perf_counter()  # a measurement is not part of the next step
        return peak

    def _rewrite(self) -> None:
        write_text(self.path, "".join(json.dumps(row) + "\n" for row in self.rows))

    def settle(self, trainer: Trainer) -> None:
        """Turn waiting losses into numbers, averaged over all processes; collective, and it waits for the device."""
        if self._losses:
            losses = torch.stack(self._losses)
            if trainer.world_size > 1:
                losses = trainer.strategy.reduce(losses, reduce_op="mean")
            self._settled += losses.cpu().double().tolist()
            self._losses.clear()

    def _check_losses(self, trainer: Trainer) -> None:
        self.settle(trainer)
        for loss in self._settled:
            if not math.isfinite(loss):
                problem = non_finite(f"the training loss ({loss})", step=self._last_step)
                problem.silent = not trainer.is_global_zero
                raise problem

    def _count_time(self) -> None:
        now = time.perf_counter()
        seconds = now - (self._mark if self._mark is not None else now)
        self._mark = now
        if self._first_step_s is None:
            self._first_step_s = seconds
            return
        self._busy += seconds
        self._busy_steps += 1

    @property
    def compile_s(self) -> float:
        """Seconds that first steps took beyond a usual one, over all sessions: compilation and first allocations."""
        usual = statistics.median(self._usual_seconds) if self._usual_seconds else 0.0
        return self._compile_before + max(0.0, (self._first_step_s or 0.0) - usual)

    def usual_tokens_per_s(self) -> float | None:
        """Tokens per second of this session's median interval between rows, without validation and saving.

        Whole intervals, because only at a row the device is waited for; a single step's time would be its launch time.
        """
        return self.tokens_per_step / statistics.median(self._usual_seconds) if self._usual_seconds else None

    def _row(self, module: TrainingModule, step: int) -> Row:
        rate = self._busy_steps * self.tokens_per_step / self._busy if self._busy else None
        if self._busy_steps:
            self._usual_seconds.append(self._busy / self._busy_steps)
        self._busy, self._busy_steps = 0.0, 0
        loss = math.fsum(self._settled) / len(self._settled) if self._settled else None
        self._settled.clear()
        peak = self.peak_flops
        mfu = rate * self.flops_per_token / peak if rate and peak else None
        values = (step, step * self.tokens_per_step, loss, None, None, module.learning_rate, module.grad_norm.item())
        rest = (rate and round(rate, 1), mfu and round(mfu, 4), round(self.elapsed_s, 3))
        return dict(zip(ROW_KEYS, (*values, *rest), strict=True))
