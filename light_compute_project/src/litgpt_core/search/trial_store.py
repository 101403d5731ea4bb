"""The memory of many runs: one Optuna database in the folder of a sweep or a study, and what it says of each trial.

A trial is one run of one combination of values. It enters the database at once with all its values, so that a kill
leaves either no trial or a complete one; one that was interrupted stays there as running until it has ended.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, Trial, TrialState

State = Literal["waiting", "running", "stopped", "done", "pruned", "diverged", "failed"]
"""running: also of a command that was killed; stopped: saved before its last step, by a signal or a budget; diverged:
losses or weights became infinite; failed: anything else.
"""
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


@dataclass(frozen=True, kw_only=True)
class TrialFacts:
    """One trial in plain values, as the record files hold it and tables and plots show it."""

    number: int | None
    """In the database; None before its first start."""
    name: str
    """Of the run."""
    state: State
    params: dict[str, Any]
    """Key -> value."""
    overrides: list[str] = field(default_factory=list)
    """What to type for this run alone."""
    value: float | None = None
    """The metric: over the whole validation split if done, the last validation if pruned."""
    last_step: int | None = None
    validations: dict[int, float] = field(default_factory=dict)
    """Step -> metric."""
    seconds: float | None = None
    """From its start to its end."""
    sessions: int = 0
    """How often it was started."""
    exit_code: int | None = None
    problem: str = ""
    """First line of the error that ended it."""
    run: str | None = None
    """The run folder."""
    result: dict[str, Any] = field(default_factory=dict)
    """`val_loss` and `val_bpb` over the whole split, `best_val_loss`, `step`, `tokens`, `train_s`, `n_params`."""
    same_as: int | None = None
    """The trial with the same values whose result was taken over."""


class TrialStore:
    """One database.

    Args:
        path: The SQLite file; made if it is absent.
        name: Of the sweep or study in it.
        pruner: Which trials are given up; None: no trial.
    """

    def __init__(self, path: Path, *, name: str, pruner: optuna.pruners.BasePruner | None = None) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)  # its own log lines would stand between ours
        storage = optuna.storages.RDBStorage(_address(path))
        self.is_new = name not in optuna.get_all_study_names(storage)
        if self.is_new:
            optuna.create_study(study_name=name, storage=storage, direction="minimize")
        self.pruner = pruner or optuna.pruners.NopPruner()
        self.study = optuna.load_study(
            study_name=name, storage=storage, sampler=optuna.samplers.RandomSampler(), pruner=self.pruner
        )

    @property
    def trials(self) -> list[FrozenTrial]:
        """All, in their order."""
        return self.study.get_trials(deepcopy=False)

    @property
    def n_finished(self) -> int:
        """Trials that have ended, in whatever way."""
        return sum(trial.state in FINISHED for trial in self.trials)

    @property
    def best(self) -> FrozenTrial | None:
        """The completed trial with the lowest value."""
        done = [trial for trial in self.trials if trial.state == TrialState.COMPLETE]
        return min(done, key=lambda trial: float(trial.value or 0.0)) if done else None

    def handle(self, trial: FrozenTrial) -> Trial:
        """What a running trial is written with."""
        return Trial(self.study, trial._trial_id)

    def add(
        self,
        values: dict[str, Any],
        *,
        distributions: dict[str, BaseDistribution],
        notes: dict[str, Any] | None = None,
        **attributes: Any,
    ) -> Trial:
        """Enter a trial with these values, as running.

        Args:
            values: Key -> value.
            distributions: Key -> what it was taken from.
            notes: Of the sampler.
            attributes: What `facts_of` reads besides.
        """
        self.study.add_trial(
            optuna.trial.create_trial(
                state=TrialState.RUNNING,
                params=values,
                distributions=distributions,
                user_attrs=attributes,
                system_attrs=notes or {},
            )
        )
        return self.handle(self.trials[-1])

    def note(self, trial: Trial, **attributes: Any) -> None:
        """Write what `facts_of` reads besides values and validations."""
        for key, value in attributes.items():
            trial.set_user_attr(key, value)

    def end(self, trial: Trial, state: State, *, value: float | None = None) -> None:
        """Write the end of a trial; a stopped one stays running, because it will be continued."""
        self.note(trial, outcome=state)
        ends = {"done": TrialState.COMPLETE, "pruned": TrialState.PRUNED}
        if state in ("done", "pruned", "diverged", "failed"):
            self.study.tell(trial, value, state=ends.get(state, TrialState.FAIL))


def facts_of(trial: FrozenTrial) -> TrialFacts:
    """One trial in plain values."""
    begin, end, noted = trial.datetime_start, trial.datetime_complete, trial.user_attrs
    return TrialFacts(
        number=trial.number,
        name=noted.get("name") or f"trial {trial.number}",
        state=_state_of(trial),
        params=trial.params,
        overrides=noted.get("overrides", []),
        value=trial.value if trial.state.is_finished() else None,
        last_step=trial.last_step,
        validations=trial.intermediate_values,
        seconds=round((end - begin).total_seconds(), 1) if begin and end else None,
        sessions=noted.get("sessions", 0),
        exit_code=noted.get("exit_code"),
        problem=noted.get("problem", ""),
        run=noted.get("run"),
        result=noted.get("result", {}),
        same_as=noted.get("same_as"),
    )


def _state_of(trial: FrozenTrial) -> State:
    outcome: State | None = trial.user_attrs.get("outcome")
    if trial.state == TrialState.COMPLETE:
        return "done"
    if trial.state == TrialState.PRUNED:
        return "pruned"
    if trial.state == TrialState.FAIL:
        return "diverged" if outcome == "diverged" else "failed"
    return outcome if outcome in ("waiting", "stopped") else "running"


def _address(path: Path) -> str:
    from sqlalchemy.engine import URL

    return URL.create("sqlite", database=str(path.resolve())).render_as_string(hide_password=False)
