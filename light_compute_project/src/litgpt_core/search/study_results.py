"""What a study has found: `study.json`, the table of trials, which parameters mattered, and the command of the best."""

from __future__ import annotations

import shlex
import warnings
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from litgpt_core.core.packages import package_versions
from litgpt_core.core.source_code import git_state
from litgpt_core.search.study_pictures import draw_study
from litgpt_core.search.study_store import StudyStore
from litgpt_core.search.sweep_pictures import short_names
from litgpt_core.training.run_folder import write_json

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from litgpt_core.search.study import Study

MIN_FOR_IMPORTANCE = 4
"""Completed trials below which a share of the spread says nothing."""


def report(study: Study, store: StudyStore) -> None:
    """Write `study.json` and `study.png`, and say on the terminal what they hold."""
    shares, picture = importance(store), study.folder / "study.png"
    drawn = draw_study(store, picture, title=study.name, shares=shares)
    content = facts(study, store, shares=shares)
    write_json(study.folder / "study.json", {**content, "picture": picture.name if drawn else None})
    console = Console()
    if store.trials:
        console.print()
        console.print(trial_table(store, title=study.name))
    if shares:
        text = ", ".join(f"{key} {share:.0%}" for key, share in shares.items())
        console.print(f"share of each in the spread of the completed trials: {text}", highlight=False, soft_wrap=True)
    if content["best"] is not None:
        console.print("\nbest trial, as one run of its own:", highlight=False)
        console.print(f"  {content['best']['command']}", highlight=False, markup=False, soft_wrap=True)
    elif store.n_finished:
        console.print("no trial was completed", highlight=False)
    for path in (study.folder / "study.json", *([picture] if drawn else [])):
        console.print(path.as_posix(), highlight=False, soft_wrap=True)


def facts(study: Study, store: StudyStore, *, shares: dict[str, float]) -> dict[str, Any]:
    """The content of `study.json`; plain values only."""
    request, best = study.request, store.best
    return {
        "name": study.name,
        "command": request.command,
        "metric": request.search.metric,
        "sampler": request.search.sampler,
        "pruner": request.search.pruner,
        "startup": request.search.startup,
        "prune_from": request.search.prune_from,
        "seed": study.config.seed,
        "space": {key: parameter.text for key, parameter in study.space.parameters.items()},
        "fixed": study.space.fixed,
        "trials": [trial_facts(trial) for trial in store.trials],
        "best": None if best is None else {**trial_facts(best), "command": best_command(study, best)},
        "importance": shares,
        "git": git_state(),
        "versions": package_versions(),
    }


def trial_facts(trial: FrozenTrial) -> dict[str, Any]:
    """One trial in plain values; `value` is the last validation of a pruned one."""
    begin, end = trial.datetime_start, trial.datetime_complete
    return {
        "number": trial.number,
        "state": state_of(trial),
        "value": trial.value if trial.state.is_finished() else None,
        "last_step": trial.last_step,
        "params": trial.params,
        "validations": {str(step): value for step, value in trial.intermediate_values.items()},
        "seconds": round((end - begin).total_seconds(), 1) if begin and end else None,
        "run": trial.user_attrs.get("run"),
        "problem": trial.user_attrs.get("problem", ""),
        "same_as": trial.user_attrs.get("same_as"),
    }


def state_of(trial: FrozenTrial) -> str:
    """`done`, `pruned`, `diverged`, `failed`, or `to be continued`."""
    if not trial.state.is_finished():
        return "to be continued"
    if trial.state.name == "FAIL":
        return "diverged" if trial.user_attrs.get("outcome") == "diverged" else "failed"
    return {"COMPLETE": "done", "PRUNED": "pruned"}[trial.state.name]


def best_command(study: Study, trial: FrozenTrial) -> str:
    """What trains the best trial again as a run of its own; the same seed, so the same losses."""
    overrides = study.overrides(trial.params, name=f"{study.name}-best")
    return shlex.join(["uv", "run", "python", "light_compute_project/scripts/train.py", *overrides])


def importance(store: StudyStore) -> dict[str, float]:
    """Parameter -> its share in the spread of the completed trials' values (PED-ANOVA), the largest first.

    Empty where there are too few trials, or all have the same value.
    """
    import optuna

    values = {trial.value for trial in store.trials if trial.state.name == "COMPLETE"}
    if len(values) < MIN_FOR_IMPORTANCE:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            shares = optuna.importance.get_param_importances(store.study)
        except (RuntimeError, ValueError):  # such as a parameter that has had one value only
            return {}
    return {key: round(float(share), 4) for key, share in shares.items()}


def trial_table(store: StudyStore, *, title: str) -> Table:
    """All trials, the best first, then the pruned, then the others."""
    metric = {"val_loss": "val loss", "val_bpb": "bits/byte"}[store.settings.metric]
    order = {"COMPLETE": 0, "PRUNED": 1}
    trials = sorted(store.trials, key=lambda t: (order.get(t.state.name, 2), t.value or 0.0, t.number))
    table = Table(title=f"{title}: {store.n_finished} of {len(trials)} trials over", title_justify="left")
    for column in ("trial", *short_names([*store.space.parameters]), metric, "step", "seconds"):
        table.add_column(column, justify="right", overflow="fold")
    table.add_column("state")
    best = store.best
    for trial in trials:
        row = trial_facts(trial)
        value = "" if row["value"] is None else f"{row['value']:.4f}"
        step = "" if row["last_step"] is None else f"{row['last_step']:,}"
        seconds = "" if row["seconds"] is None else f"{row['seconds']:.0f}"
        values = [str(trial.params.get(key, "")) for key in store.space.parameters]
        style = "bold" if best is not None and trial.number == best.number else None
        table.add_row(str(trial.number), *values, value, step, seconds, row["state"], style=style)
    return table
