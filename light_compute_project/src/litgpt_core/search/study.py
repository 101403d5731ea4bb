"""A study: Optuna proposes settings, `train.py` tries them one after the other, and what is known steers the next one.

    space (study_space.py) -> proposal (study_store.py) -> one child process (study_trial.py) -> database
    -> study.json, study.png, tables (study_results.py), after every trial

The same command typed again continues: trials that are over are kept, the one that was running goes on from its
checkpoint with its values. `--trials` counts all trials of the study.
"""

from __future__ import annotations

import logging
import math
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from litgpt_core.config.compose import TrainConfig, load
from litgpt_core.config.trainer import WandbSettings
from litgpt_core.core.errors import ConfigError, LightComputeError
from litgpt_core.core.lock import exclusive
from litgpt_core.distributed.requeue import request_requeue
from litgpt_core.search.child_process import StopSignals, end_left_over, refuse_ranks
from litgpt_core.search.study_space import Space, read_space
from litgpt_core.search.study_store import DATABASE, SearchSettings, StudyStore
from litgpt_core.search.study_trial import Outcome, TrialRun
from litgpt_core.training.run_folder import is_used

if TYPE_CHECKING:
    from optuna.trial import Trial

logger = logging.getLogger(__name__)

MAX_CRASHES = 3
"""Trials in a row that end with a traceback or are killed before the study gives up."""


@dataclass(frozen=True, kw_only=True)
class StudyRequest:
    """What was typed."""

    overrides: Sequence[str]
    """Settings of `train.py`, some of them with ranges."""
    search: SearchSettings
    trials: int | None
    """Of the whole study; None: all of a grid."""
    name: str | None
    """Of the study's folder; None: that of the run and `-study`."""
    timeout_s: float | None
    """Of this command."""
    command: str
    script: Path | None = None
    """What is started instead of `lcp train`, for tests."""


class Study:
    """One study, opened in its folder.

    Args:
        request: What was typed.

    Raises:
        ConfigError: A setting is wrong somewhere in the space; or the folder holds something else.
    """

    def __init__(self, request: StudyRequest) -> None:
        self.request = request
        self.space = read_space(request.overrides)
        self.config = self._load(self.space.first())
        self.name = request.name or f"{self.config.run.name}-study"
        replace(self.config.run, name=self.name)  # refuses what is no name of a folder
        self.folder = Path(self.config.run.dir).expanduser() / self.name
        _check(self.space, request, config=self.config)

    def open(self) -> StudyStore:
        """The database, new or known; to be called with the folder's lock held."""
        if is_used(self.folder) and not (self.folder / DATABASE).is_file():
            raise ConfigError(
                f"{self.folder} holds something else than a study",
                needed="a folder of its own",
                fix=f"--name {self.name}-2",
            )
        store = StudyStore(self.folder, space=self.space, config=self.config, settings=self.request.search)
        for values in _one_at_a_time(self.space):
            self._load(values)
        return store

    def run(self, store: StudyStore, *, signals: StopSignals) -> None:
        """Carry trials out until there are enough, the time is up, or a signal came.

        Raises:
            LightComputeError: A trial cannot run for a reason that no other trial would escape.
        """
        deadline = time.monotonic() + (self.request.timeout_s or math.inf)
        wanted = min(self.request.trials or math.inf, store.size or math.inf)
        crashes = 0
        while not signals.count and time.monotonic() < deadline:
            trial = store.left_running()
            if trial is None:
                if store.n_finished >= wanted:
                    break
                values, notes = store.suggest()
                if (twin := store.twin(values)) is not None:
                    copy = store.copy(twin, notes)
                    logger.info("trial %d: %s: the same as trial %d", copy.number, _shown(values), twin.number)
                    continue
                self._load(values)  # a mistake here ends the study before the trial exists
                trial = store.begin(values, notes)
                logger.info("trial %d: %s", trial.number, _shown(values))
            else:
                logger.info("trial %d goes on: %s", trial.number, _shown(trial.params))
            run = self._trial_run(trial)
            outcome = run.carry_out(trial, signals=signals, deadline=deadline)
            self._settle(store, trial, outcome, run)
            crashes = crashes + 1 if outcome.state == "failed" else 0
            if outcome.state == "stopped" and outcome.ending and not signals.count and time.monotonic() < deadline:
                signals.take(outcome.ending.exit_code)  # somebody stopped the child: that means the study
            if crashes == MAX_CRASHES:
                raise LightComputeError(
                    f"{MAX_CRASHES} trials in a row crashed",
                    needed="trials that run; they are counted as failed",
                    fix=f"look at the end of {run.output.as_posix()}, then the same command with more --trials",
                )

    def _settle(self, store: StudyStore, trial: Trial, outcome: Outcome, run: TrialRun) -> None:
        """Write a trial's end into the database and say it."""
        from optuna.trial import TrialState

        message = outcome.ending.message if outcome.ending else ""
        trial.set_user_attr("run", run.config.run.folder.as_posix())
        trial.set_user_attr("outcome", outcome.state)
        trial.set_user_attr("problem", "" if outcome.state in ("done", "pruned") else message.partition("\n")[0])
        if outcome.state == "mistaken":  # it stays running: once the cause is mended it goes on
            raise LightComputeError(
                f"trial {trial.number} ({_shown(trial.params)}) cannot run:\n{message or run.output}"
            )
        if outcome.state == "stopped":
            return
        states = {"done": TrialState.COMPLETE, "pruned": TrialState.PRUNED}
        store.study.tell(trial, outcome.value, state=states.get(outcome.state, TrialState.FAIL))
        best = store.best
        known = f"; best so far {best.value:.4f}, trial {best.number}" if best is not None else ""
        value = f" {outcome.value:.4f}" if outcome.value is not None else ""
        problem = f" ({message.partition(chr(10))[0]})" if outcome.state in ("diverged", "failed") and message else ""
        logger.info("trial %d %s%s%s%s", trial.number, outcome.state, value, problem, known)

    def _trial_run(self, trial: Trial) -> TrialRun:
        overrides = self.overrides(trial.params, name=f"{self.name}-{trial.number:03d}", folder=self.folder)
        if isinstance(self.config.logger, WandbSettings) and self.config.logger.group is None:
            overrides.append(f"logger.group={self.name}")
        return TrialRun(
            config=load(overrides),
            overrides=overrides,
            script=self.request.script,
            folder=self.folder,
            metric=self.request.search.metric,
        )

    def overrides(self, values: dict[str, Any], *, name: str, folder: Path | None = None) -> list[str]:
        """What to type for one run with these values, in `folder` or where runs of this study's owner lie."""
        from hydra.core.override_parser.types import Quote, QuotedString

        typed = self.space.overrides(values)
        if folder is not None:
            text = QuotedString(text=folder.as_posix(), quote=Quote.single).with_quotes()
            typed = [*(o for o in typed if not o.lstrip("+").startswith("run.dir=")), f"run.dir={text}"]
        return [*typed, f"run.name={name}"]

    def _load(self, values: dict[str, Any]) -> TrainConfig:
        named = [] if self.space.name is None else [f"run.name={self.space.name}"]
        try:
            return load([*self.space.overrides(values), *named])
        except ConfigError as error:
            floats = [key for key, value in values.items() if isinstance(value, float) and f"{key}=" in str(error)]
            hint = f"whole numbers: {floats[0]}=int(interval(...))" if floats and "integer" in str(error) else ""
            raise ConfigError(
                f"with {_shown(values)}: {error.given}", needed=error.needed, fix=error.fix or hint
            ) from error


def run_study(request: StudyRequest) -> int:
    """Open or continue a study, carry it out, report.

    Returns:
        0; 130 or 143 if a signal ended it.

    Raises:
        LightComputeError: Anything the user can mend.
    """
    from litgpt_core.search.study_results import report

    refuse_ranks()
    study = Study(request)
    study.folder.mkdir(parents=True, exist_ok=True)
    with exclusive(study.folder / ".lock", purpose=f"the study in {study.folder}", keep=True):
        store = study.open()
        end_left_over(study.folder)
        with StopSignals() as signals:
            try:
                study.run(store, signals=signals)
            finally:
                report(study, store)
    if signals.received is not None:
        logger.warning("%s: the study is stopped; the same command continues it", signals.received.name)
        if signals.exit_code != 130:
            request_requeue()
    return signals.exit_code


def _check(space: Space, request: StudyRequest, *, config: TrainConfig) -> None:
    """What can be said about the search before there is a folder."""
    search, trainer = request.search, config.trainer
    problems = []
    for option, number, least in (("trials", request.trials, 1), ("startup", search.startup, 1)):
        if number is not None and number < least:
            problems.append(f"--{option} {number}: needed {least} or more")
    if search.prune_from < 0:
        problems.append(f"--prune_from {search.prune_from}: needed 0 or a step")
    if request.trials is None and search.sampler != "grid":
        problems.append(f"--sampler {search.sampler} does not end by itself: type --trials 20")
    if search.pruner == "median" and trainer.eval_interval >= trainer.max_steps:
        problems.append(
            f"trainer.eval_interval={trainer.eval_interval} leaves nothing to prune in {trainer.max_steps} steps: "
            "a smaller one, or --pruner none"
        )
    if search.pruner != "median" and search.prune_from:
        problems.append(f"--prune_from has no effect on --pruner {search.pruner}")
    if search.metric == "val_loss" and any(key.split(".")[0] == "tokenizer" for key in space.parameters):
        problems.append("losses of different tokenizers cannot be compared: type --metric val_bpb")
    if problems:
        raise ConfigError("; ".join(problems))


def _one_at_a_time(space: Space) -> list[dict[str, Any]]:
    """Each end of each parameter, the others at their first value: where most mistakes in a space show."""
    return [
        {**space.first(), key: value} for key, parameter in space.parameters.items() for value in parameter.ends[1:]
    ]


def _shown(values: dict[str, Any]) -> str:
    return shlex.join(f"{key}={value}" for key, value in values.items())
