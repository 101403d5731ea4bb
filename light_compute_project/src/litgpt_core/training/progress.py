"""What the terminal shows while training: a live bar on a terminal, one line per logged step elsewhere (files, CI,
pipes).
"""

from __future__ import annotations

import logging
import sys
from typing import Any

from lightning import Callback, LightningModule, Trainer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from litgpt_core.training.metrics import MetricsRecorder

logger = logging.getLogger(__name__)


class ProgressDisplay(Callback):
    """Steps done, losses, bits per byte, throughput and the time left.

    Args:
        recorder: Where the numbers come from.
        max_steps: Length of the bar.
    """

    def __init__(self, recorder: MetricsRecorder, *, max_steps: int) -> None:
        self.recorder, self.max_steps = recorder, max_steps
        self._bar: Progress | None = None
        self._shown_rows = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open the bar."""
        self._shown_rows = len(self.recorder.rows)
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
            logger.info("%s", row_text(row, max_steps=self.max_steps))

    def _numbers(self) -> str:
        row = self.recorder.rows[-1]
        parts = [f"loss {row['train_loss']:.3f}"] if row["train_loss"] is not None else []
        validated = [r for r in self.recorder.rows if r["val_bpb"] is not None]
        if validated:
            parts.append(f"val {validated[-1]['val_bpb']:.3f} bits/byte")
        if row["tokens_per_s"]:
            parts.append(f"{row['tokens_per_s'] / 1000:.1f}k tok/s")
        return "  ".join(parts)


def row_text(row: dict[str, Any], *, max_steps: int) -> str:
    """One row of metrics as a line of text."""
    text = f"step {row['step']:>{len(str(max_steps))}}/{max_steps}"
    if row["train_loss"] is not None:
        text += f"  loss {row['train_loss']:.4f}"
    if row["val_loss"] is not None:
        text += f"  val {row['val_loss']:.4f} ({row['val_bpb']:.4f} bits/byte)"
    if row["tokens_per_s"]:
        text += f"  {row['tokens_per_s']:,.0f} tok/s"
    return text + f"  {row['elapsed_s']:.0f} s"
