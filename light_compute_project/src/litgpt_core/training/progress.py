"""What the terminal shows while training: a live bar on a terminal, one line per logged step elsewhere (files, CI,
pipes).
"""

from __future__ import annotations

import logging
import sys
import time
from typing import Any

from lightning import Callback, LightningModule, Trainer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from litgpt_core.core.command_line import shown_command
from litgpt_core.core.text import two_digits
from litgpt_core.training.metrics import MetricsRecorder

logger = logging.getLogger(__name__)


class ProgressDisplay(Callback):
    """Steps done, losses, bits per byte, throughput and the time left, and after the first steps an estimate of the
    whole run.

    Args:
        recorder: Where the numbers come from.
        max_steps: Length of the bar.
        shorter: Experiment to suggest where the run takes long; None: none.
    """

    def __init__(self, recorder: MetricsRecorder, *, max_steps: int, shorter: str | None = None) -> None:
        self.recorder, self.max_steps, self.shorter = recorder, max_steps, shorter
        self._pace = Pace()
        self._estimate: float | None = None
        self._bar: Progress | None = None
        self._shown_rows = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open the bar."""
        self._shown_rows = self._first_row = len(self.recorder.rows)
        if sys.stderr.isatty() and trainer.is_global_zero:
            self._bar = Progress(
                TextColumn("step"),
                MofNCompleteColumn(),
                BarColumn(bar_width=None),
                TextColumn("{task.fields[numbers]}"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
                expand=True,
            )
            self._bar.start()
            self._task = self._bar.add_task("train", total=self.max_steps, completed=trainer.global_step, numbers="")

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Show rows as they are written."""
        self._show(trainer)
        on_cpu = pl_module.device.type == "cpu"  # elsewhere steps are only waited for at a row
        if on_cpu or len(self.recorder.rows) > self._first_row:
            self._pace.passed(trainer.global_step, now=time.monotonic())
        seconds = self._pace.seconds_left(self.max_steps)
        if seconds is None or self._pace.steps < FIRST_STEPS or not trainer.is_global_zero:
            return
        early = trainer.global_step < self.max_steps / 4
        if self._estimate is None or (early and self._estimate <= LONG_S < seconds):
            self._estimate = seconds
            for line in estimate_lines(seconds, shorter=self.shorter):
                logger.info("%s", line)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the bar."""
        self._close(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Close the bar before the error is printed."""
        self._close(trainer)

    def _close(self, trainer: Trainer) -> None:
        self._show(trainer)
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _show(self, trainer: Trainer) -> None:
        if not trainer.is_global_zero:
            return
        new = self.recorder.rows[self._shown_rows :]
        self._shown_rows = len(self.recorder.rows)
        if self._bar is not None:
            self._bar.update(self._task, completed=trainer.global_step)
            if new:
                self._bar.update(self._task, numbers=self._numbers())
            return
        for row in new:
            left = self._pace.seconds_left(self.max_steps)
            logger.info("%s", row_text(row, max_steps=self.max_steps, seconds_left=left))

    def _numbers(self) -> str:
        row = self.recorder.rows[-1]
        parts = [f"loss {row['train_loss']:.3f}"] if row["train_loss"] is not None else []
        validated = [r for r in self.recorder.rows if r["val_bpb"] is not None]
        if validated:
            parts.append(f"val {validated[-1]['val_bpb']:.3f} bits/byte")
        if row["tokens_per_s"]:
            parts.append(f"{row['tokens_per_s'] / 1000:.1f}k tok/s")
        return "  ".join(parts)


FIRST_STEPS = 3
"""Steps after the first one, which compiles, whose pace gives the first estimate. A second one follows if the pace
falls so far that a short run becomes a long one.
"""
LONG_S = 8 * 60
"""A run estimated to take longer is offered a shorter one."""


class Pace:
    """Seconds per optimizer step of this session, validation and saving included; its first step, which compiles, is
    left out.
    """

    def __init__(self) -> None:
        self._begun: tuple[int, float] | None = None
        self._latest: tuple[int, float] | None = None
        self._first_step: int | None = None

    def passed(self, step: int, *, now: float) -> None:
        """`step` steps are done at the moment `now`, in seconds."""
        if self._first_step is None:
            self._first_step = step
        if step > self._first_step and self._begun is None:
            self._begun = (step, now)
        if self._begun is not None and (self._latest is None or step > self._latest[0]):
            self._latest = (step, now)

    @property
    def steps(self) -> int:
        """Steps that were timed."""
        return self._latest[0] - self._begun[0] if self._begun and self._latest else 0

    def seconds_left(self, max_steps: int) -> float | None:
        """Until the last step at the pace so far; None before there is one."""
        if not self.steps or self._begun is None or self._latest is None:
            return None
        each = (self._latest[1] - self._begun[1]) / self.steps
        return each * max(0, max_steps - self._latest[0])


def estimate_lines(seconds: float, *, shorter: str | None) -> list[str]:
    """What to say after the first steps: how long the training takes here, and what is shorter."""
    lines = [f"the training will take about {about(seconds)} on this machine"]
    if shorter and seconds > LONG_S:
        command = shown_command("train", f"+experiment={shorter}")
        lines.append(f"  a shorter one: Ctrl-C, then {command}")
    return lines


def about(seconds: float) -> str:
    """A time that is an estimate: `40 s`, `9 min`, `2.5 h`."""
    if seconds < 90:
        return f"{max(1, round(seconds, -1) if seconds >= 20 else round(seconds)):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def row_text(row: dict[str, Any], *, max_steps: int, seconds_left: float | None = None) -> str:
    """One row of metrics as a line of text, with the time left where that is known."""
    text = f"step {row['step']:>{len(str(max_steps))}}/{max_steps}"
    if row["train_loss"] is not None:
        text += f"  loss {row['train_loss']:.4f}"
    if row["val_loss"] is not None:
        text += f"  val {row['val_loss']:.4f} ({row['val_bpb']:.4f} bits/byte)"
    if row["tokens_per_s"]:
        text += f"  {two_digits(row['tokens_per_s'])} tok/s"
    text += f"  {row['elapsed_s']:.0f} s"
    return text + (f"  about {about(seconds_left)} left" if seconds_left and row["step"] < max_steps else "")
