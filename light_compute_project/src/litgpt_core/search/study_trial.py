"""One trial of a study: `train.py` as a child, its validations handed to Optuna as they are written, and its end.

Rows are judged one after the other by their step, however far the child has got meanwhile, so that what is pruned does
not depend on how fast anybody looks.
"""

from __future__ import annotations

import logging
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from litgpt_core.config.compose import TrainConfig
from litgpt_core.core.command_line import child_command
from litgpt_core.runs.result import is_done, result_of
from litgpt_core.search.child_process import POLL_S, ChildRun, Ending, StopSignals
from litgpt_core.training.rows import GrowingCurve
from litgpt_core.training.run_folder import RunFolder

if TYPE_CHECKING:
    from optuna.trial import Trial

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a trial ended."""

    state: Literal["done", "pruned", "diverged", "failed", "mistaken", "stopped"]
    """mistaken: what was typed, or the machine, is not all right, so that no other trial would fare better; stopped:
    saved, to be continued.
    """
    value: float | None = None
    """Of a finished run: the metric over the whole validation split."""
    ending: Ending | None = None
    """Of the child, if one was started."""


@dataclass(frozen=True, kw_only=True)
class TrialRun:
    """What is needed to carry a trial out.

    Args:
        config: Of the trial's run.
        overrides: What is typed for it.
        script: What is started instead of `lcp train`, for tests.
        folder: Of the study.
        metric: Which key of `metrics.jsonl` is judged.
    """

    config: TrainConfig
    overrides: Sequence[str]
    script: Path | None
    folder: Path
    metric: str

    @property
    def output(self) -> Path:
        """What the child says."""
        return self.folder / "output" / f"{self.config.run.name}.txt"

    def carry_out(self, trial: Trial, *, signals: StopSignals, deadline: float) -> Outcome:
        """Start the run, or continue it, and watch it to its end.

        Args:
            trial: Of the database; steps that it knows are not reported again.
            signals: Passed on to the child.
            deadline: On `time.monotonic`'s clock; then the child saves and leaves.
        """
        judge = _Judge(trial, metric=self.metric, config=self.config)
        if judge.pruned or judge.look():
            return Outcome(state="pruned")
        if is_done(self.config):
            return self._finished(judge, Ending(exit_code=0))
        child = self._start()
        told = False
        while True:
            child.obey(signals)
            ending = child.poll()
            if not told and judge.look():
                child.stop()
                told = True
            if not told and time.monotonic() > deadline and ending is None:
                logger.info("trial %d: the study's time is up, it saves", trial.number)
                child.stop()
                told = True
            if ending is not None:
                break
            time.sleep(POLL_S)
        if judge.look():
            return Outcome(state="pruned", ending=ending)
        return self._finished(judge, ending)

    def _start(self) -> ChildRun:
        self.output.parent.mkdir(exist_ok=True)
        overrides = [*self.overrides, "run.resume=auto"]
        command = [sys.executable, str(self.script), *overrides] if self.script else child_command("train", *overrides)
        return ChildRun(command, name=self.config.run.name, folder=self.folder, output=self.output)

    def _finished(self, judge: _Judge, ending: Ending) -> Outcome:
        if ending.diverged:
            return Outcome(state="diverged", ending=ending)
        if ending.stopped:
            return Outcome(state="stopped", ending=ending)
        if ending.exit_code == 2:
            return Outcome(state="mistaken", ending=ending)
        if ending.exit_code:
            return Outcome(state="failed", ending=ending)
        value = result_of(self.config).get(self.metric) if is_done(self.config) else judge.last_value
        if value is None or not math.isfinite(value):
            problem = f"it ended without a finite {self.metric}"
            return Outcome(state="failed", ending=Ending(exit_code=0, message=problem))
        return Outcome(state="done", value=value, ending=ending)


class _Judge:
    """Hands new validations to Optuna and asks whether the trial is worth going on with."""

    def __init__(self, trial: Trial, *, metric: str, config: TrainConfig) -> None:
        self.trial, self.max_steps = trial, config.trainer.max_steps
        known = trial.study.get_trials(deepcopy=False)[trial.number].intermediate_values
        self.last_step = max(known, default=-1)
        self.last_value = known.get(self.last_step)
        self._curve = GrowingCurve(RunFolder(config.run.folder).metrics, key=metric)
        self.pruned = bool(known) and self._hopeless()
        """Whether the answer was no; also if it was given to a command that was killed before it acted on it."""

    def look(self) -> bool:
        """Report what is new; whether the trial is pruned."""
        for step, value in self._curve.new_values():
            if self.pruned or step <= self.last_step:
                continue
            self.trial.report(value, step)
            self.last_step, self.last_value = step, value
            logger.info("trial %d: step %d, %.4f", self.trial.number, step, value)
            self.pruned = self._hopeless()
        return self.pruned

    def _hopeless(self) -> bool:
        """A run that is through is never pruned: its value is known."""
        return self.last_step < self.max_steps and bool(self.trial.should_prune())
