"""A study's database: which values are proposed next, and what a study may be continued with.

A trial is proposed from what is in the database and from (seed, number of the trial), never from the state of a random
generator: a study that was killed proposes what the undisturbed one would have.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import optuna
from optuna.distributions import check_distribution_compatibility
from optuna.trial import FrozenTrial, Trial, TrialState

from litgpt_core.config.compose import TrainConfig
from litgpt_core.config.diff import differences
from litgpt_core.core.errors import ConfigError
from litgpt_core.core.redaction import redact_values
from litgpt_core.data.recorded_settings import LOCATIONS, with_later_settings
from litgpt_core.search.study_space import SearchParameter, Space
from litgpt_core.search.trial_store import TrialStore
from litgpt_core.training.run_folder import decides_trajectory

logger = logging.getLogger(__name__)

DATABASE = "study.db"

ALSO_FIXED = tuple(
    f"trainer.{name}"
    for name in ("max_steps", "eval_interval", "eval_tokens", "patience", "min_delta", "restore_best", "precision")
)
"""Besides what decides a run's trajectory: with another value of these, trials could not be compared."""


@dataclass(frozen=True, kw_only=True)
class SearchSettings:
    """How a study looks for better values."""

    metric: Literal["val_loss", "val_bpb"] = "val_loss"
    """What is made small."""
    sampler: Literal["tpe", "random", "grid"] = "tpe"
    pruner: Literal["median", "hyperband", "none"] = "median"
    startup: int = 5
    """Finished trials before `tpe` looks at them and `median` prunes."""
    prune_from: int = 0
    """`median` prunes no trial before this step."""


class StudyStore(TrialStore):
    """One study's database.

    Args:
        folder: Of the study.
        space: What is searched.
        config: Of a trial with the first value of everything; its seed is the study's.
        settings: How to search.

    Raises:
        ConfigError: The folder holds a study of something else.
    """

    def __init__(self, folder: Path, *, space: Space, config: TrainConfig, settings: SearchSettings) -> None:
        super().__init__(folder / DATABASE, name=folder.name, pruner=_pruner(settings, config))
        self.space, self.settings, self.config = space, settings, config
        if not self.is_new and "space" in self.study.user_attrs:
            self._refuse_another_study(folder)
        for key, value in (
            ("space", space.plain()),
            ("base", redact_values(config.plain)),
            ("metric", settings.metric),
        ):
            self.study.set_user_attr(key, value)

    @property
    def size(self) -> int | None:
        """How many trials there can be; only a grid has an end."""
        if self.settings.sampler != "grid":
            return None
        return int(np.prod([len(values) for values in _grid(self.space).values()]))

    def left_running(self) -> Trial | None:
        """The trial that the command before did not finish; one whose values this space does not hold is given up."""
        for trial in self.trials:
            if trial.state != TrialState.RUNNING:
                continue
            handle = self.handle(trial)
            fits = trial.params.keys() == self.space.parameters.keys()
            if fits and all(self.space.parameters[key].allows(value) for key, value in trial.params.items()):
                return handle
            logger.warning("trial %d is given up: its values lie outside what is searched now", trial.number)
            self.note(handle, problem="given up: outside what is searched now")
            self.end(handle, "failed")
        return None

    # ---- asking ----

    def suggest(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Values of the next trial, and what the sampler notes with it. The database is not touched."""
        finished = self.trials
        sampler = _sampler(self.settings, self.space, seed=self.config.seed, number=len(finished))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            copy = optuna.create_study(
                study_name=self.study.study_name, direction="minimize", sampler=sampler, pruner=self.pruner
            )
            copy.add_trials(finished)
            asked = copy.ask({key: parameter.distribution for key, parameter in self.space.parameters.items()})
        values = {key: self.space.parameters[key].rounded(value) for key, value in asked.params.items()}
        return values, dict(copy.trials[asked.number].system_attrs)

    def begin(self, values: dict[str, Any], notes: dict[str, Any]) -> Trial:
        """Enter a trial with these values into the database, as running."""
        distributions = {key: parameter.distribution for key, parameter in self.space.parameters.items()}
        return self.add(values, distributions=distributions, notes=notes)

    def twin(self, values: dict[str, Any]) -> FrozenTrial | None:
        """An earlier trial with the same values, whose end would only be repeated; a crash may not be."""
        for trial in self.trials:
            if trial.params == values and trial.user_attrs.get("outcome") in ("done", "pruned", "diverged"):
                return trial
        return None

    def copy(self, twin: FrozenTrial, notes: dict[str, Any]) -> FrozenTrial:
        """Enter a trial that ended as `twin` did, without running it."""
        self.study.add_trial(
            optuna.trial.create_trial(
                state=twin.state,
                value=twin.value,
                params=twin.params,
                distributions=twin.distributions,
                intermediate_values=twin.intermediate_values,
                user_attrs={**twin.user_attrs, "same_as": twin.number},
                system_attrs=notes,
            )
        )
        return self.trials[-1]

    # ---- continuing ----

    def _refuse_another_study(self, folder: Path) -> None:
        before = self.study.user_attrs
        old = {key: _parameter(entry) for key, entry in before["space"].items()}
        lines = (
            []
            if before["metric"] == self.settings.metric
            else [f"--metric {before['metric']} -> {self.settings.metric}"]
        )
        for key, parameter in self.space.parameters.items():
            lines += _incompatible(old.get(key), parameter, grid=self.settings.sampler == "grid")
        if self.settings.sampler == "grid":
            lines += [
                f"{key}: {parameter.text} -> (not searched)"
                for key, parameter in old.items()
                if key not in self.space.parameters
            ]
        searched = {*old, *self.space.parameters}
        plain = redact_values(self.config.plain)  # as it was stored
        changed = [
            (key, line)
            for key, line in differences(with_later_settings(before["base"], plain), plain)
            if not any(key == name or key.startswith(f"{name}.") for name in searched)
        ]
        lines += [line for key, line in changed if _is_fixed(key)]
        if lines:
            raise ConfigError(
                f"{folder} holds another study:\n    " + "\n    ".join(lines),
                needed="what it was started with; ranges may change, choices and fixed settings may not",
                fix=f"a study of its own: --name {folder.name}-2",
            )
        for key in sorted(searched):
            now, then = self.space.parameters.get(key), old.get(key)
            if (then and then.text) != (now and now.text):
                shown = [p.text if p else "(not searched)" for p in (then, now)]
                logger.warning("the study goes on with another range: %s: %s -> %s", key, *shown)


def _is_fixed(key: str) -> bool:
    if ".".join(key.split(".")[:2]) in {f"data.{name}" for name in LOCATIONS}:
        return False
    return decides_trajectory(key) or key in ALSO_FIXED


def _sampler(settings: SearchSettings, space: Space, *, seed: int, number: int) -> optuna.samplers.BaseSampler:
    """The sampler of one trial, seeded by the study's seed and the trial's number."""
    if settings.sampler == "grid":  # its seed is the order of the grid, which must be one for the whole study
        return optuna.samplers.GridSampler(_grid(space), seed=seed % 2**32)
    own = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
    if settings.sampler == "random":
        return optuna.samplers.RandomSampler(seed=own)
    return optuna.samplers.TPESampler(seed=own, n_startup_trials=settings.startup)


def _grid(space: Space) -> dict[str, Sequence[Any]]:
    grid: dict[str, Sequence[Any]] = {}
    for key, parameter in space.parameters.items():
        if parameter.values is None:
            raise ConfigError(
                f"{key}={parameter.text} has no end of values, which --sampler grid needs",
                needed="values to take one after the other",
                fix=f"{key}=choice(...), '{key}=range(...)', or --sampler tpe",
            )
        grid[key] = parameter.values
    return grid


def _pruner(settings: SearchSettings, config: TrainConfig) -> optuna.pruners.BasePruner:
    if settings.pruner == "median":
        return optuna.pruners.MedianPruner(n_startup_trials=settings.startup, n_warmup_steps=settings.prune_from)
    if settings.pruner == "none":
        return optuna.pruners.NopPruner()
    stop = config.trainer.stop
    steps = stop.max_steps if stop.epochs is None else "auto"  # those of the first finished trial
    return optuna.pruners.HyperbandPruner(
        min_resource=config.trainer.evaluation.eval_interval,
        max_resource=steps,
    )


def _parameter(entry: dict[str, Any]) -> SearchParameter:
    return SearchParameter(**{**entry, "choices": tuple(entry["choices"])})


def _incompatible(old: SearchParameter | None, new: SearchParameter, *, grid: bool) -> list[str]:
    """What Optuna does not take within one study: other choices, another kind or scale; and a changed grid."""
    line = f"{new.key}: {old.text if old else '(not searched)'} -> {new.text}"
    if old is None:
        return [line] if grid else []
    if grid and old != new:
        return [line]
    try:
        check_distribution_compatibility(old.distribution, new.distribution)
    except ValueError:
        return [line]
    return []
