"""Carrying trials out: `train.py` as a child of each, its validations stored as they are written, and the one loop.

Rows are judged one after the other by their step, however far the child has got meanwhile, so that what is pruned does
not depend on how often it is looked at.
"""

from __future__ import annotations

import logging
import math
import shlex
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from litgpt_core.config.compose import TrainConfig
from litgpt_core.config.loggers import WandbSettings
from litgpt_core.core.child_process import StopSignals
from litgpt_core.core.command_line import child_command
from litgpt_core.core.lock import exclusive
from litgpt_core.distributed.requeue import request_requeue
from litgpt_core.runs.result import is_done, result_of
from litgpt_core.search.child_run import POLL_S, ChildRun, Ending, end_left_over, refuse_ranks
from litgpt_core.search.findings import SearchResults
from litgpt_core.search.results import report
from litgpt_core.training.rows import GrowingCurve
from litgpt_core.training.run_folder import RunFolder

if TYPE_CHECKING:
    from optuna.trial import Trial

    from litgpt_core.search.trial_store import TrialStore

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a trial ended."""

    state: Literal["done", "ended_early", "pruned", "diverged", "failed", "mistaken", "stopped"]
    """ended_early: by a budget of its own; mistaken: a setting or the machine is wrong, so that the run cannot start;
    stopped: saved, to be continued.
    """
    value: float | None = None
    """The metric: over the whole validation split of a finished run, else the last validation."""
    ending: Ending
    """Of the child."""


class TrialRun:
    """One trial, being carried out.

    Args:
        trial: In the store; steps that it knows are not reported again.
        config: Of the trial's run.
        command: That trains it.
        folder: Of the sweep or study.
        metric: Which key of `metrics.jsonl` is judged.
        output: File for the child's output; None for this terminal.
        environment: Variables besides those of this process.
    """

    def __init__(
        self,
        trial: Trial,
        *,
        config: TrainConfig,
        command: Sequence[str],
        folder: Path,
        metric: str,
        output: Path | None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.trial, self.config, self.output, self.command = trial, config, output, command
        self._folder, self._metric, self._environment = folder, metric, environment
        self._judge = _Judge(
            trial, metric=metric, config=config, level=logging.DEBUG if output is None else logging.INFO
        )
        self._child: ChildRun | None = None
        self._told = False

    def known_outcome(self) -> Outcome | None:
        """The outcome, if the store or the run folder tells it already."""
        if self._judge.pruned or self._judge.look():
            return Outcome(state="pruned", ending=Ending(exit_code=0))
        return self._finished(Ending(exit_code=0)) if is_done(self.config) else None

    def start(self) -> None:
        """Start the child."""
        if self.output is not None:
            self.output.parent.mkdir(exist_ok=True)
        self._child = ChildRun(
            self.command,
            name=self.config.run.name,
            folder=self._folder,
            output=self.output,
            environment=self._environment,
        )

    def poll(self, signals: StopSignals, *, deadline: float) -> Outcome | None:
        """Forward signals, store new validations, stop what is pruned or out of time; the outcome once it has ended."""
        assert self._child is not None, "start() first"
        self._child.forward(signals)
        ending = self._child.poll()
        if not self._told and self._judge.look():
            self._child.stop()
            self._told = True
        if not self._told and time.monotonic() > deadline and ending is None:
            logger.info("trial %d: the time is up, it saves", self.trial.number)
            self._child.stop()
            self._told = True
        if ending is None:
            return None
        if self._judge.look():
            return Outcome(state="pruned", ending=ending)
        return self._finished(ending)

    def _finished(self, ending: Ending) -> Outcome:
        if ending.diverged:
            return Outcome(state="diverged", ending=ending)
        if ending.stopped:
            return Outcome(state="stopped", ending=ending)
        if ending.exit_code:
            return Outcome(state="mistaken" if ending.exit_code == 2 else "failed", ending=ending)
        done = is_done(self.config)
        value = result_of(self.config).get(self._metric) if done else self._judge.last_value
        if value is None or not math.isfinite(value):
            problem = f"it ended without a finite {self._metric}"
            return Outcome(state="failed", ending=Ending(exit_code=0, message=problem))
        return Outcome(state="done" if done else "ended_early", value=value, ending=ending)


class _Judge:
    """Hands new validations to the store and asks its pruner whether the trial should be given up."""

    def __init__(self, trial: Trial, *, metric: str, config: TrainConfig, level: int) -> None:
        self.trial, self._config, self._level = trial, config, level
        known = trial.study.get_trials(deepcopy=False)[trial.number].intermediate_values
        self.last_step = max(known, default=-1)
        self.last_value = known.get(self.last_step)
        self._curve = GrowingCurve(RunFolder(config.run.folder).metrics, key=metric)
        self.pruned = bool(known) and self._hopeless()
        """Also if this was decided in a command that was killed before it acted on it."""

    def look(self) -> bool:
        """Report what is new; whether the trial is pruned."""
        for step, value in self._curve.new_values():
            if self.pruned or step <= self.last_step:
                continue
            self.trial.report(value, step)
            self.last_step, self.last_value = step, value
            logger.log(self._level, "trial %d: step %d, %.4f", self.trial.number, step, value)
            self.pruned = self._hopeless()
        return self.pruned

    def _hopeless(self) -> bool:
        """A run that has reached its last step is never pruned: its value is known."""
        return self.last_step < self._max_steps() and bool(self.trial.should_prune())

    def _max_steps(self) -> int:
        """Of the config, or as the run recorded what its epochs are."""
        stop = self._config.trainer.stop
        recorded = RunFolder(self._config.run.folder).read_config().get("trainer") if stop.epochs is not None else None
        steps = recorded.get("max_steps") if isinstance(recorded, dict) else None
        return steps if isinstance(steps, int) else stop.max_steps


class TrialSource(ABC):
    """Which trials are to be carried out, and what their ends mean: a sweep or a study."""

    store: TrialStore

    @abstractmethod
    def next_run(self, place: int) -> TrialRun | None:
        """The next trial, for one of the places that run at the same time; None if there is none left."""

    @abstractmethod
    def settle(self, run: TrialRun, outcome: Outcome) -> None:
        """Write a trial's end.

        Raises:
            LightComputeError: There is no point in going on.
        """

    @property
    @abstractmethod
    def findings(self) -> SearchResults:
        """For the record, the table and the plot."""

    @property
    def exit_code(self) -> int:
        """What the ends of all trials mean for the whole."""
        return 0

    def starting(self, run: TrialRun) -> None:
        """A child is about to be started."""
        noted = self.store.trials[run.trial.number].user_attrs
        self.store.note(run.trial, outcome="running", sessions=noted.get("sessions", 0) + 1, problem="", exit_code=None)
        again = " continues" if noted.get("sessions") else ""
        logger.info("trial %d%s: %s", run.trial.number, again, shown_values(run.trial.params))


def shown_values(values: Mapping[str, Any]) -> str:
    """Values as they are given on the command line."""
    return shlex.join(f"{key}={value}" for key, value in values.items())


def training_command(overrides: Sequence[str], *, script: Path | None) -> list[str]:
    """What trains one trial: `lcp train`, or a script in its place, for tests."""
    return [sys.executable, str(script), *overrides] if script else child_command("train", *overrides)


def in_group(overrides: Sequence[str], config: TrainConfig, *, group: str) -> list[str]:
    """The same, in one group of the dashboard with all trials of a sweep or study, unless the user names a group."""
    named = isinstance(config.logger, WandbSettings) and config.logger.group is None
    return [*overrides, *([f"logger.group={group}"] if named else [])]


def carry_out(
    folder: Path, open_source: Callable[[], TrialSource], *, kind: str, jobs: int = 1, timeout_s: float | None = None
) -> int:
    """Open or continue a sweep or study in its folder, carry its trials out, report.

    Args:
        folder: Made if it is absent.
        open_source: Called once no other command works in the folder.
        kind: For messages.
        jobs: How many trials run at the same time.
        timeout_s: Of this command.

    Returns:
        0; 130 or 143 if a signal ended it; else the exit code that the trials' ends mean.
    """
    refuse_ranks()
    folder.mkdir(parents=True, exist_ok=True)
    with exclusive(folder / ".lock", purpose=f"the {kind} in {folder}", keep=True):
        end_left_over(folder)
        source = open_source()
        with StopSignals() as signals:
            try:
                run_trials(source, jobs=jobs, signals=signals, deadline=time.monotonic() + (timeout_s or math.inf))
            finally:
                report(source.findings)
    if signals.received is not None:
        logger.warning("%s: the %s is stopped; the same command continues it", signals.received.name, kind)
        if signals.exit_code != 130:
            request_requeue()
    return signals.exit_code or source.exit_code


def run_trials(source: TrialSource, *, jobs: int, signals: StopSignals, deadline: float = math.inf) -> None:
    """Carry trials out, `jobs` at a time, until none is left, the time is up, or a signal has arrived.

    Args:
        source: Of the trials.
        jobs: How many run at the same time.
        signals: Forwarded to all children; one that stops a child alone stops everything.
        deadline: On `time.monotonic`'s clock; then what runs saves and exits.
    """
    running: dict[int, TrialRun] = {}
    left = True
    while True:
        while left and len(running) < jobs and not signals.count and time.monotonic() < deadline:
            place = min(set(range(jobs)) - running.keys())
            run = source.next_run(place)
            if run is None:
                left = False
            elif (outcome := run.known_outcome()) is not None:
                source.settle(run, outcome)
            else:
                source.starting(run)
                run.start()
                running[place] = run
        if not running:
            return
        for place, run in list(running.items()):
            if (outcome := run.poll(signals, deadline=deadline)) is not None:
                del running[place]
                source.settle(run, outcome)
                if outcome.state == "stopped" and not signals.count and time.monotonic() < deadline:
                    signals.take(outcome.ending.exit_code)
        time.sleep(POLL_S)
