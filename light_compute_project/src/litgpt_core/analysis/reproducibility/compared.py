"""Two runs side by side: settings, environments, every row they share, and how they ended."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from litgpt_core.analysis.reproducibility.recorded import RecordedRun
from litgpt_core.analysis.reproducibility.report import (
    Report,
    Table,
    describe_first,
    number,
    share,
    trace_numbers,
    trace_table,
)
from litgpt_core.analysis.reproducibility.suspects import suspects
from litgpt_core.analysis.reproducibility.trace import (
    PLANNED_SPREAD,
    TraceComparison,
    compare_rows,
    last_validation,
    spread,
)
from litgpt_core.config_diff import differences, is_place
from litgpt_core.errors import ConfigError

Plain = dict[str, Any]


def config_lines(one: Path, other: Path) -> list[str]:
    """Settings that differ between two runs, `key: one -> other`; those of `run` and `logger` come last."""
    a, b = (RecordedRun.read(path).plain for path in (one, other))
    found = differences(a, b)
    return [line for _, line in sorted(found, key=lambda entry: is_place(entry[0]))]


def compare_runs(one: Path, other: Path, *, within: float | None = None) -> Report:
    """Compare two runs, whatever they are: two seeds, two machines, before and after a change.

    Args:
        one: A run folder.
        other: Another.
        within: Greatest difference of the last validation losses that passes, as a share of their mean; None: runs
            with equal settings must be identical, others may lie `PLANNED_SPREAD` apart.

    Raises:
        ConfigError: A folder holds no run, or they have no step in common.
    """
    a, b = RecordedRun.read(one), RecordedRun.read(other)
    names = (one.as_posix(), other.as_posix()) if a.name == b.name else (a.name, b.name)
    changed = [(key, line) for key, line in differences(a.plain, b.plain) if not is_place(key)]
    other_rows = any(key == "trainer.log_interval" for key, _ in changed)
    found = compare_rows(a.rows, b.rows, shared_steps_only=other_rows)
    if not found.values:
        raise ConfigError(
            f"{one} and {other} have no step in common",
            needed="runs with rows of the same steps (trainer.log_interval)",
        )
    width, ended = _endings(a, b, names=names)
    exact = within is None and not changed  # equal settings are to give equal numbers
    limit = 0.0 if exact else PLANNED_SPREAD if within is None else within
    close = not exact and width is not None and width <= limit
    config = Table(title="Settings that differ", header=("setting",), rows=[(line,) for _, line in changed])
    return Report(
        kind="compare",
        title=f"{names[0]} against {names[1]}",
        passed=found.identical or close,
        verdict=_verdict(found, names=names, width=width, demanded="to be identical" if exact else share(limit)),
        method=[
            "Read config.yaml, environment.json and metrics.jsonl of both runs; nothing was trained.",
            "Compared tokens, learning rate, training loss, gradient norm and validation loss of every step up to the "
            "last that both have.",
        ],
        tables=[*([config] if changed else []), trace_table(found, title="Rows", sides=names), ended],
        remarks=_remarks(a, b, other_rows=other_rows),
        identical=found.identical,
        suspects=suspects(a.environment, b.environment),
        numbers={
            "runs": names,
            "within": within,
            "config_differences": [line for _, line in changed],
            "last_val_loss_spread": width,
            **trace_numbers(found),
        },
        environments=dict(zip(names, (a.environment, b.environment), strict=True)),
    )


def _remarks(a: RecordedRun, b: RecordedRun, *, other_rows: bool) -> list[str]:
    remarks = []
    if other_rows:
        remarks.append("A row's training loss is a mean since the row before, so trainer.log_interval changes it.")
    for run in (a, b):
        if run.torn_lines:
            lines = ", ".join(map(str, run.torn_lines))
            remarks.append(f"{run.path.name}: line {lines} of metrics.jsonl holds no row.")
    return remarks


def _verdict(found: TraceComparison, *, names: tuple[str, str], width: float | None, demanded: str) -> str:
    if found.identical:
        return f"identical: {found.values} numbers of {len(found.steps)} rows."
    apart = "at least one has no validation" if width is None else f"last validation losses: {share(width)} apart"
    parts = describe_first(found, sides=names)
    return f"not identical; the first difference is at {parts}. {apart.capitalize()}. Demanded: {demanded}."


def _endings(a: RecordedRun, b: RecordedRun, *, names: tuple[str, str]) -> tuple[float | None, Table]:
    """How far apart the last validation losses are, and the table of endings."""
    rows, losses = [], []
    for name, run in zip(names, (a, b), strict=True):
        last = last_validation(run.rows)
        whole = (run.summary.get("whole_split") or {}).get("val_loss")
        losses += [last[1]] if last else []
        rows.append(
            (name, str(run.last_step), str(last[0]) if last else "–", number(last[1] if last else None), number(whole))
        )
    width = spread(losses) if len(losses) == 2 else None
    note = "" if width is None else f"Largest minus smallest of the last validations: {width:.2%} of their mean."
    header = ("run", "last step", "validated at", "validation loss", "whole split")
    return width, Table(title="How they ended", header=header, rows=rows, note=note)
