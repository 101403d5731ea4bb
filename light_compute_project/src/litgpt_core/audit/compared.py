"""Two runs side by side: settings, environments, every row they share, and how they ended."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from litgpt_core.audit.causes import likely_causes, setting_causes
from litgpt_core.audit.recorded import RecordedRun
from litgpt_core.audit.report import (
    Report,
    Table,
    describe_first,
    number,
    share,
    trace_numbers,
    trace_table,
)
from litgpt_core.audit.trace import (
    PLANNED_SPREAD,
    TraceComparison,
    compare_rows,
    last_validation,
    spread,
)
from litgpt_core.config.diff import differences, is_place
from litgpt_core.core.errors import ConfigError

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
        within: Greatest difference of the validation losses, at the last step that both have validated, that passes, as
            a share of their mean; None: runs with equal settings must be identical, others may lie `PLANNED_SPREAD`
            apart.

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
    validated = _last_shared_validation(a, b)
    settings = setting_causes(a.plain, b.plain)
    exact = within is None and not settings  # equal settings are to give equal numbers
    limit = 0.0 if exact else PLANNED_SPREAD if within is None else within
    close = not exact and validated is not None and validated[1] <= limit
    config = Table(title="Settings that differ", header=("setting",), rows=[(line,) for _, line in changed])
    return Report(
        kind="compare",
        title=f"{names[0]} against {names[1]}",
        passed=found.identical or close,
        verdict=_verdict(
            found, names=names, validated=validated, required="to be identical" if exact else share(limit)
        ),
        method=[
            "Read config.yaml, environment.json and metrics.jsonl of both runs; nothing was trained.",
            "Compared tokens, learning rate, training loss, gradient norm and validation loss of every step up to the "
            "last that both have.",
        ],
        tables=[
            *([config] if changed else []),
            trace_table(found, title="Rows", sides=names),
            _endings(a, b, names=names),
        ],
        remarks=_remarks(a, b, other_rows=other_rows),
        identical=found.identical,
        likely_causes=[*settings, *likely_causes(a.environment, b.environment)],
        numbers={
            "runs": names,
            "within": within,
            "config_differences": [line for _, line in changed],
            "last_shared_validation": None if validated is None else {"step": validated[0], "spread": validated[1]},
            **trace_numbers(found),
        },
        environments=dict(zip(names, (a.environment, b.environment), strict=True)),
    )


def _remarks(a: RecordedRun, b: RecordedRun, *, other_rows: bool) -> list[str]:
    remarks = []
    if other_rows:
        remarks.append("A row's training loss is a mean since the row before, so trainer.log_interval changes it.")
    for run in (a, b):
        if run.corrupt_lines:
            lines = ", ".join(map(str, run.corrupt_lines))
            remarks.append(f"{run.path.name}: line {lines} of metrics.jsonl holds no row.")
    return remarks


def _verdict(
    found: TraceComparison, *, names: tuple[str, str], validated: tuple[int, float] | None, required: str
) -> str:
    if found.identical:
        return f"identical: {found.values} numbers of {len(found.steps)} rows."
    parts = describe_first(found, sides=names)
    apart = "No step was validated in both."
    if validated is not None:
        apart = f"Validation losses at step {validated[0]}, the last that both have: {share(validated[1])} apart."
    return f"not identical; the first difference is at {parts}. {apart} Required: {required}."


def _last_shared_validation(a: RecordedRun, b: RecordedRun) -> tuple[int, float] | None:
    """The last step that both have validated, and how far apart the losses are, as a share of their mean."""
    one, other = (
        {row["step"]: row["val_loss"] for row in run.rows if row.get("val_loss") is not None} for run in (a, b)
    )
    if not (shared := one.keys() & other.keys()):
        return None
    step = max(shared)
    return step, spread([one[step], other[step]])


def _endings(a: RecordedRun, b: RecordedRun, *, names: tuple[str, str]) -> Table:
    """The last row of both, and their losses over the whole split."""
    rows = []
    for name, run in zip(names, (a, b), strict=True):
        step, loss = last_validation(run.rows) or (None, None)
        whole = (run.summary.get("whole_split") or {}).get("val_loss")
        rows.append((name, str(run.last_step), number(step), number(loss), number(whole)))
    header = ("run", "last step", "validated at", "validation loss", "whole split")
    return Table(title="How they ended", header=header, rows=rows)
