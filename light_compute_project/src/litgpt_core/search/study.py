"""A study: Optuna proposes settings, `train.py` tries them one after the other, and the results steer the next one.

    space (study_space.py) -> proposal (study_store.py) -> one child process (trials.py) -> database
    -> study.json, study.png, table (results.py), at the end of every command

The same command typed again continues: trials that are over are kept, the one that was running goes on from its
checkpoint with its values. `--trials` counts all trials of the study.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from litgpt_core.config.compose import TrainConfig, load
from litgpt_core.core.command_line import shown_command
from litgpt_core.core.errors import ConfigError, LightComputeError
from litgpt_core.core.text import hydra_quoted
from litgpt_core.runs.result import result_of
from litgpt_core.search.findings import SearchResults
from litgpt_core.search.results import importance
from litgpt_core.search.study_space import Space, read_space
from litgpt_core.search.study_store import DATABASE, SearchSettings, StudyStore
from litgpt_core.search.trial_store import facts_of
from litgpt_core.search.trials import (
    Outcome,
    TrialRun,
    TrialSource,
    carry_out,
    in_group,
    shown_values,
    training_command,
)
from litgpt_core.training.run_folder import is_used

if TYPE_CHECKING:
    from optuna.trial import Trial

logger = logging.getLogger(__name__)

MAX_CRASHES = 3
"""Trials in a row that end with a traceback or are killed before the study gives up."""


@dataclass(frozen=True, kw_only=True)
class StudyRequest:
    """The command line."""

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


class Study(TrialSource):
    """One study.

    Args:
        request: The command line.

    Raises:
        ConfigError: A setting is wrong somewhere in the space.
    """

    def __init__(self, request: StudyRequest) -> None:
        self.request = request
        self.space = read_space(request.overrides)
        self.config = self._load(self.space.first())
        self.name = request.name or f"{self.config.run.name}-study"
        replace(self.config.run, name=self.name)  # refuses what is no name of a folder
        self.folder = Path(self.config.run.dir).expanduser() / self.name
        self._crashes = 0
        _check(self.space, request, config=self.config)

    def open(self) -> StudyStore:
        """Open the database, new or known; to be called with the folder's lock held.

        Raises:
            ConfigError: The folder holds something else; or a value of the space is wrong.
        """
        if is_used(self.folder) and not (self.folder / DATABASE).is_file():
            raise ConfigError(
                f"{self.folder} holds something else than a study",
                needed="a folder of its own",
                fix=f"--name {self.name}-2",
            )
        self.store: StudyStore = StudyStore(
            self.folder, space=self.space, config=self.config, settings=self.request.search
        )
        for values in _one_at_a_time(self.space):
            self._load(values)
        return self.store

    # ---- what the loop asks ----

    def next_run(self, place: int) -> TrialRun | None:
        """The trial that was left, or a new one, as long as there are to be more."""
        store = self.store
        wanted = min(self.request.trials or math.inf, store.size or math.inf)
        while (trial := store.left_running()) is None:
            if store.n_finished >= wanted:
                return None
            values, notes = store.suggest()
            if (twin := store.twin(values)) is not None:
                copy = store.copy(twin, notes)
                logger.info("trial %d: %s: the same as trial %d", copy.number, shown_values(values), twin.number)
                continue
            self._load(values)  # a mistake here ends the study before the trial exists
            trial = store.begin(values, notes)
            break
        return self._trial_run(trial)

    def settle(self, run: TrialRun, outcome: Outcome) -> None:
        """Write a trial's end into the database and log it.

        Raises:
            LightComputeError: No other trial would escape what ended this one; or too many crashed.
        """
        trial, ending, value = run.trial, outcome.ending, outcome.value
        state = {"ended_early": "done", "mistaken": "stopped"}.get(outcome.state, outcome.state)
        good = state in ("done", "pruned")
        problem = "" if good else ending.problem
        result = result_of(run.config) if outcome.state == "done" else {}
        self.store.note(trial, exit_code=0 if good else ending.exit_code, problem=problem, result=result)
        self.store.end(trial, state, value=value if state == "done" else None)  # type: ignore[arg-type]
        if outcome.state == "mistaken":  # it stays unfinished: once the cause is mended it goes on
            raise LightComputeError(
                f"trial {trial.number} ({shown_values(trial.params)}) cannot run:\n{ending.message or run.output}"
            )
        if state == "stopped":
            return
        best = self.store.best
        logger.info(
            "trial %d %s%s%s%s",
            trial.number,
            state,
            f" {value:.4f}" if value is not None else "",
            f" ({problem})" if problem else "",
            f"; best so far {best.value:.4f}, trial {best.number}" if best is not None else "",
        )
        self._crashes = self._crashes + 1 if state == "failed" else 0
        if self._crashes == MAX_CRASHES:
            raise LightComputeError(
                f"{MAX_CRASHES} trials in a row crashed",
                needed="trials that run; they are counted as failed",
                fix=f"look at the end of {run.output}, then the same command with more --trials",
            )

    def _trial_run(self, trial: Trial) -> TrialRun:
        name = f"{self.name}-{trial.number:03d}"
        overrides = self.overrides(trial.params, name=name, folder=self.folder)
        overrides = in_group(overrides, self.config, group=self.name)
        config = load(overrides)
        self.store.note(trial, name=name, run=config.run.folder.as_posix(), overrides=overrides)
        overrides = [*overrides, "run.resume=auto"]
        return TrialRun(
            trial,
            config=config,
            command=training_command(overrides, script=self.request.script),
            folder=self.folder,
            metric=self.request.search.metric,
            output=self.folder / "output" / f"{name}.txt",
        )

    # ---- what is found ----

    @property
    def findings(self) -> SearchResults:
        """For the record, the table and the plot."""
        search, best = self.request.search, self.store.best
        return SearchResults(
            kind="study",
            name=self.name,
            folder=self.folder,
            metric=search.metric,
            parameters=self.space.parameters,
            trials=[facts_of(trial) for trial in self.store.trials],
            shares=importance(self.store),
            settings={
                "command": self.request.command,
                "sampler": search.sampler,
                "pruner": search.pruner,
                "startup": search.startup,
                "prune_from": search.prune_from,
                "seed": self.config.seed,
                "space": {key: parameter.text for key, parameter in self.space.parameters.items()},
                "fixed": self.space.fixed,
            },
            best_command=None
            if best is None
            else shown_command("train", *self.overrides(best.params, name=f"{self.name}-best")),
        )

    def overrides(self, values: dict[str, Any], *, name: str, folder: Path | None = None) -> list[str]:
        """What to type for one run with these values, in `folder` or where runs of this study's owner lie."""
        typed = self.space.overrides(values)
        if folder is not None:
            typed = [
                *(o for o in typed if not o.lstrip("+").startswith("run.dir=")),
                f"run.dir={hydra_quoted(folder.as_posix())}",
            ]
        return [*typed, f"run.name={name}"]

    def _load(self, values: dict[str, Any]) -> TrainConfig:
        named = [] if self.space.name is None else [f"run.name={self.space.name}"]
        try:
            return load([*self.space.overrides(values), *named])
        except ConfigError as error:
            floats = [key for key, value in values.items() if isinstance(value, float) and f"{key}=" in str(error)]
            hint = f"whole numbers: {floats[0]}=int(interval(...))" if floats and "integer" in str(error) else ""
            raise ConfigError(
                f"with {shown_values(values)}: {error.given}", needed=error.needed, fix=error.fix or hint
            ) from error


def run_study(request: StudyRequest) -> int:
    """Open or continue a study, carry it out, report.

    Returns:
        0; 130 or 143 if a signal ended it.

    Raises:
        LightComputeError: Anything the user can mend.
    """
    study = Study(request)

    def opened() -> Study:
        study.open()
        return study

    return carry_out(study.folder, opened, kind="study", timeout_s=request.timeout_s)


def _check(space: Space, request: StudyRequest, *, config: TrainConfig) -> None:
    """What can be said about the search before there is a folder."""
    search = request.search
    eval_interval, max_steps = config.trainer.evaluation.eval_interval, config.trainer.stop.max_steps
    problems = []
    for option, number, least in (("trials", request.trials, 1), ("startup", search.startup, 1)):
        if number is not None and number < least:
            problems.append(f"--{option} {number}: needed {least} or more")
    if search.prune_from < 0:
        problems.append(f"--prune_from {search.prune_from}: needed 0 or a step")
    if request.trials is None and search.sampler != "grid":
        problems.append(f"--sampler {search.sampler} does not end by itself: type --trials 20")
    known = config.trainer.stop.epochs is None  # else the first trial says how many steps there are
    if search.pruner == "median" and known and eval_interval >= max_steps:
        problems.append(
            f"trainer.eval_interval={eval_interval} leaves nothing to prune in {max_steps} steps: "
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
