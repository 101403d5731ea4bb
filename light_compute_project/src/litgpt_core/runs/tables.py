"""Runs side by side: values as rows, a table for the terminal, and the settings in which runs differ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from litgpt_core.config.diff import flatten
from litgpt_core.core.durations import duration_text
from litgpt_core.core.errors import ConfigError
from litgpt_core.core.packages import optional
from litgpt_core.core.text import nearest
from litgpt_core.runs.folders import RunRecord, number_of

if TYPE_CHECKING:
    from rich.table import Table

COLUMNS = (
    *("name", "state", "step", "tokens", "best_val_loss", "val_loss", "val_bpb", "n_params", "train_s", "device"),
    "started",
)
RESULTS = (
    "state",
    "step",
    "tokens",
    "train_loss",
    "val_loss",
    "val_bpb",
    "best_val_loss",
    "tokens_per_s",
    "train_s",
    "flops",
)

_IGNORED = ("run", "logger")
"""Sections of the config that no result depends on."""


def rows(
    runs: Sequence[RunRecord], *, columns: Sequence[str] = COLUMNS, sort: str = "", reverse: bool = False
) -> list[dict[str, Any]]:
    """One dictionary per run, ready for `pandas.DataFrame`; values that are not known are None.

    Args:
        runs: As `find` and `resolve` return them.
        columns: Short names or dotted keys, see `RunRecord.get`.
        sort: Column to sort by, smallest first, runs without a value last; empty keeps the order.
        reverse: Largest first.

    Raises:
        ConfigError: No run knows a column.
    """
    known = {name for run in runs for name in run.known} | set(COLUMNS) | set(RESULTS)
    for key in [*columns, *([sort] if sort else [])]:
        if runs and key not in known:
            raise ConfigError(f"no run has a value {key!r}{nearest(key, known)}")
    ordered = list(runs)
    if sort:
        having = [run for run in runs if run.get(sort) is not None]
        are_numbers = all(number_of(run.get(sort)) is not None for run in having)
        having.sort(key=lambda run: run.get(sort) if are_numbers else str(run.get(sort)), reverse=reverse)
        ordered = [*having, *(run for run in runs if run not in having)]
    return [{key: run.get(key) for key in columns} for run in ordered]


def frame(runs: Sequence[RunRecord], *, columns: Sequence[str] = COLUMNS, sort: str = "") -> Any:
    """`rows` as a `pandas.DataFrame`.

    Raises:
        EnvironmentProblem: pandas is not installed.
    """
    instead = "it, or runs.rows(...), which gives dictionaries"
    pandas = optional("pandas", given="pandas is not installed", needed=instead, fix="uv pip install pandas")
    return pandas.DataFrame(rows(runs, columns=columns, sort=sort))


def table(found: Sequence[dict[str, Any]]) -> Table:
    """Rows as a table for the terminal, numbers rounded and aligned to the right."""
    from rich.table import Table

    drawn = Table()
    for key in found[0] if found else ():
        is_text = any(isinstance(row[key], str) for row in found)
        drawn.add_column(key, justify="left" if is_text else "right", no_wrap=True)
    for row in found:
        drawn.add_row(*(shown(key, value) for key, value in row.items()))
    return drawn


def shown(key: str, value: Any) -> str:
    """One value as people read it: results rounded, settings as given."""
    if value is None:
        return ""
    if key.endswith(("train_s", "wall_s")):
        return duration_text(float(value))
    if key == "flops":
        return f"{value:.2e}"
    if key == "started":
        return str(value)[:16].replace("T", " ")
    if key.split(".")[-1] in (*RESULTS, "n_params") and isinstance(value, (int, float)):
        return f"{value:,}" if isinstance(value, int) else f"{value:.4f}" if abs(value) < 1000 else f"{value:,.0f}"
    return str(value)


def changed_settings(runs: Sequence[RunRecord]) -> dict[str, list[Any]]:
    """Dotted keys of the config whose values are not the same in all runs -> the value in each, None where absent.

    Settings of folders and loggers (`run.*`, `logger.*`) are left out.
    """
    flat = [flatten(run.config) for run in runs]
    keys = dict.fromkeys(key for one in flat for key in one if key.split(".", 1)[0] not in _IGNORED)
    found = {key: [one.get(key) for one in flat] for key in keys}
    return {key: values for key, values in found.items() if any(value != values[0] for value in values)}


def comparison(runs: Sequence[RunRecord]) -> list[Table]:
    """What differs in the settings, and the results: one column for each run."""
    from rich.table import Table

    settings = changed_settings(runs)
    drawn = []
    for title, values in (
        ("settings that differ" if settings else "no setting differs", settings),
        ("results", {key: [run.get(key) for run in runs] for key in RESULTS}),
    ):
        one = Table(title=title, title_justify="left")
        one.add_column("")
        for run in runs:
            one.add_column(run.name, justify="right", no_wrap=True)
        for key, each in values.items():
            if any(value is not None for value in each):
                one.add_row(key, *("(absent)" if v is None and values is settings else shown(key, v) for v in each))
        drawn.append(one)
    return drawn
