"""What a sweep or a study has found: the record file, the table, the spread over seeds, and what mattered."""

from __future__ import annotations

import statistics
import warnings
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from litgpt_core.core.files import write_json
from litgpt_core.core.packages import package_versions
from litgpt_core.core.redaction import redact_values
from litgpt_core.core.source_code import git_state
from litgpt_core.search import plots
from litgpt_core.search.findings import METRIC_NAMES, SearchResults, short_names
from litgpt_core.search.trial_store import TrialFacts, TrialStore

COLUMN_NAMES = {"val_loss": "val loss", "val_bpb": "bits/byte"}
MIN_FOR_IMPORTANCE = 4
"""Completed trials below which a share of the spread says nothing."""


def report(findings: SearchResults) -> None:
    """Write the record and the plot, and print what they hold."""
    drawn = plots.draw(findings, findings.plot_file)
    write_record(
        findings,
        picture=findings.plot_file.name if drawn else None,
        git=git_state(),
        versions=package_versions(),
    )
    console = Console()
    for table in tables(findings):
        console.print()
        console.print(table)
    for trial in findings.trials:
        if trial.state in ("failed", "diverged"):
            text = f"{trial.name} {trial.state}: {trial.problem or f'exit code {trial.exit_code}'}"
            console.print(text, highlight=False, markup=False, soft_wrap=True)
    lines = []
    if findings.shares:
        text = ", ".join(f"{key} {share:.0%}" for key, share in findings.shares.items())
        lines.append(f"share of each in the spread of the completed trials: {text}")
    if findings.best is not None:
        if findings.best.run:
            lines.append(f"best run: {findings.best.run}")
        if findings.best_command:
            lines += ["\nbest trial, as one run of its own:", f"  {findings.best_command}"]
    elif any(trial.state in ("pruned", "diverged", "failed") for trial in findings.trials):
        lines.append("no trial was completed")
    lines += [findings.record_file.as_posix(), *([findings.plot_file.as_posix()] if drawn else [])]
    console.print("\n" + "\n".join(lines), highlight=False, markup=False, soft_wrap=True)


def write_record(findings: SearchResults, **more: Any) -> None:
    """Write `sweep.json` or `study.json`."""
    write_json(findings.record_file, redact_values({**facts(findings), **more}))


def facts(findings: SearchResults) -> dict[str, Any]:
    """The content of the record file; plain values only."""
    best = findings.best
    trials = {"sweep": "runs", "study": "trials"}[findings.kind]
    return {
        "name": findings.name,
        "metric": findings.metric,
        **findings.settings,
        trials: [_plain(trial) for trial in findings.trials],
        "best": None if best is None else {**_plain(best), **best.result, "command": findings.best_command},
        "over_seeds": over_seeds(findings),
        "importance": findings.shares,
    }


def _plain(trial: TrialFacts) -> dict[str, Any]:
    return {**asdict(trial), "validations": {str(step): value for step, value in trial.validations.items()}}


def over_seeds(findings: SearchResults) -> list[dict[str, Any]]:
    """For each combination of the other values: mean, standard deviation (n - 1) and extremes over its seeds.

    Empty unless several seeds of one combination are done. The best mean comes first.
    """
    groups: dict[tuple[tuple[str, Any], ...], list[float]] = {}
    for trial in findings.trials:
        if "seed" in trial.params and trial.state == "done" and trial.value is not None and trial.same_as is None:
            others = tuple((key, value) for key, value in trial.params.items() if key != "seed")
            groups.setdefault(others, []).append(trial.value)
    rows = [
        {
            "values": dict(others),
            "seeds": len(found),
            "mean": statistics.fmean(found),
            "std": statistics.stdev(found),
            "min": min(found),
            "max": max(found),
        }
        for others, found in groups.items()
        if len(found) > 1
    ]
    return sorted(rows, key=lambda row: row["mean"])


def importance(store: TrialStore) -> dict[str, float]:
    """SearchParameter -> its share in the spread of the completed trials' values (PED-ANOVA), the largest first.

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


def tables(findings: SearchResults) -> list[Table]:
    """For the terminal: all trials, the best first, and the seeds taken together where there are several."""
    keys, what = findings.varied, {"sweep": "runs", "study": "trials"}[findings.kind]
    over = sum(trial.state in ("done", "pruned", "diverged", "failed") for trial in findings.trials)
    done = sum(trial.state == "done" for trial in findings.trials)
    count = f"{done} of {len(findings.trials)} {what} done" if findings.kind == "sweep" else f"{over} {what} ended"
    table = Table(title=f"{findings.name}: {count}", title_justify="left")
    numbered = ["trial"] if findings.kind == "study" else []
    shown = [{findings.metric: trial.value, **trial.result} for trial in findings.ranked]
    losses = [key for key in COLUMN_NAMES if key == findings.metric or any(key in numbers for numbers in shown)]
    for column in (*numbered, *short_names(keys), *(COLUMN_NAMES[key] for key in losses), "step", "seconds"):
        table.add_column(column, justify="right", overflow="fold")
    table.add_column("state")
    for trial, numbers in zip(findings.ranked, shown, strict=True):
        seconds = trial.result.get("train_s", trial.seconds)
        table.add_row(
            *([str(trial.number)] if numbered else []),
            *(str(trial.params.get(key, "")) for key in keys),
            *(_number(numbers.get(key), ".4f") for key in losses),
            _number(numbers.get("step", trial.last_step), ",.0f"),
            _number(seconds, ".0f"),
            trial.state,
            style="bold" if trial is findings.best else None,
        )
    return [table, *_seed_table(findings)]


def _seed_table(findings: SearchResults) -> list[Table]:
    rows = over_seeds(findings)
    if not rows:
        return []
    table = Table(title=f"over seeds, {METRIC_NAMES[findings.metric]}", title_justify="left")
    others = [key for key in findings.varied if key not in ("seed", "run.name")]
    for column in (*others, "seeds", "mean", "std", "min", "max"):
        table.add_column(column, justify="right")
    for row in rows:
        numbers = [_number(row[key], ".4f") for key in ("mean", "std", "min", "max")]
        table.add_row(*(str(row["values"][key]) for key in others), str(row["seeds"]), *numbers)
    return [table]


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)
