"""What a sweep has found: its runs from best to worst, and the spread over seeds, as numbers and as tables."""

from __future__ import annotations

import statistics
from typing import Any

from rich.table import Table

from litgpt_core.search.sweep_record import Entry, SweepRecord

METRIC_NAMES = {"val_loss": "val loss (nats/token)", "val_bpb": "val bits per byte"}


def ranked(record: SweepRecord) -> list[Entry]:
    """Finished runs, the best first, then the others in the order of the grid."""
    done = [entry for entry in record.entries if entry.result.get(record.metric) is not None]
    return [
        *sorted(done, key=lambda entry: entry.result[record.metric]),
        *(entry for entry in record.entries if entry not in done),
    ]


def over_seeds(record: SweepRecord) -> list[dict[str, Any]]:
    """For each combination of the other swept values: mean, standard deviation (n - 1) and extremes over its seeds.

    Empty unless the sweep has several seeds, and several of one combination are done. The best mean comes first.
    """
    groups: dict[tuple[tuple[str, str], ...], list[float]] = {}
    for entry in record.entries:
        if "seed" in entry.values and (value := entry.result.get(record.metric)) is not None:
            others = tuple((key, text) for key, text in entry.values.items() if key != "seed")
            groups.setdefault(others, []).append(value)
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


def summary(record: SweepRecord) -> dict[str, Any]:
    """What `sweep.json` says besides its runs."""
    best = next((entry for entry in ranked(record) if entry.state == "done"), None)
    return {
        "best": None if best is None else {"name": best.name, "values": best.values, **best.result},
        "over_seeds": over_seeds(record),
    }


def tables(record: SweepRecord) -> list[Table]:
    """For the terminal: all runs, and the seeds taken together where there are several."""
    swept = [key for key, values in record.grid.axes.items() if len(values) > 1]
    done = sum(entry.state == "done" for entry in record.entries)
    table = Table(title=f"{record.grid.name}: {done} of {len(record.entries)} runs done", title_justify="left")
    for column in (*swept, "val loss", "bits/byte", "steps", "seconds"):
        table.add_column(column, justify="right")
    table.add_column("state")
    for number, entry in enumerate(ranked(record)):
        values = [entry.values[key] for key in swept]
        forms = {"val_loss": ".4f", "val_bpb": ".4f", "step": ",.0f", "train_s": ".0f"}
        numbers = [_number(entry.result.get(key), form) for key, form in forms.items()]
        style = "bold" if number == 0 and entry.state == "done" else None
        table.add_row(*values, *numbers, entry.state, style=style)
    return [table, *_seed_table(record)]


def problems(record: SweepRecord) -> list[str]:
    """One line for each run that did not end well."""
    return [f"{e.name} {e.state}: {e.problem or f'exit code {e.exit_code}'}" for e in record.entries if e.exit_code]


def _seed_table(record: SweepRecord) -> list[Table]:
    rows = over_seeds(record)
    if not rows:
        return []
    table = Table(title=f"over seeds, {METRIC_NAMES[record.metric]}", title_justify="left")
    others = [key for key, values in record.grid.axes.items() if len(values) > 1 and key not in ("seed", "run.name")]
    for column in (*others, "seeds", "mean", "std", "min", "max"):
        table.add_column(column, justify="right")
    for row in rows:
        numbers = [_number(row[key], ".4f") for key in ("mean", "std", "min", "max")]
        table.add_row(*(row["values"][key] for key in others), str(row["seeds"]), *numbers)
    return [table]


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)
