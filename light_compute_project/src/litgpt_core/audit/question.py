"""The arguments of `scripts/reproducibility_audit.py`, and which function answers them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from litgpt_core.core.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Question:
    """The script's arguments."""

    what: list[str] = field(default_factory=list)
    """A run folder, or nothing beside `experiment`; then settings."""
    experiment: str | None = None
    steps: int | None = None
    seeds: list[int] | None = None
    threads: list[int] | None = None
    within: float | None = None
    """A share, not a percentage."""
    compare: list[Path] | None = None
    config_diff: list[Path] | None = None
    command: Path | None = None
    environment_info: Path | None = None
    """The empty path stands for the project's own file."""
    output: Path | None = None


@dataclass(frozen=True, kw_only=True)
class AuditAnswer:
    """What to print, and the exit code."""

    lines: list[str]
    exit_code: int = 0


def answer(question: Question) -> AuditAnswer:
    """Answer one question; each imports what it needs.

    Raises:
        ConfigError: There is no question, or there are two.
        LightComputeError: What was asked about cannot be read, prepared or trained.
    """
    _refuse_two(question)
    question = _with_folders(question)
    if question.environment_info is not None:
        from litgpt_core.audit.machine_page import PAGE, write_environment_page

        path = question.environment_info
        return AuditAnswer(lines=[f"wrote {write_environment_page(PAGE if path == Path() else path)}"])
    if question.config_diff:
        from litgpt_core.audit.compared import config_lines

        found = config_lines(*question.config_diff)
        return AuditAnswer(lines=found or ["no setting differs"], exit_code=1 if found else 0)
    if question.command is not None:
        from litgpt_core.audit.again import command_lines

        return AuditAnswer(lines=command_lines(question.command))
    if question.compare:
        from litgpt_core.audit.compared import compare_runs

        one, other = question.compare
        report = compare_runs(one, other, within=question.within)
        return _written(report, question.output or one, stem=f"audit-against-{other.resolve().name}")
    return _train_and_compare(question)


def _train_and_compare(question: Question) -> AuditAnswer:
    """A replay, or one of the variations."""
    from litgpt_core.audit.audit import as_settings, replay_run
    from litgpt_core.audit.trace import PLANNED_SPREAD
    from litgpt_core.audit.variations import over_seeds, over_threads, repeat

    run = None if question.experiment else Path(question.what[0])
    changes = question.what if run is None else question.what[1:]
    varied = question.seeds or question.threads
    if run is not None and not varied:
        report = replay_run(run, steps=question.steps, changes=changes, within=question.within or 0.0)
        return _written(report, question.output or run, stem="audit")
    name, plain = as_settings(run, experiment=question.experiment, changes=changes)
    limit = PLANNED_SPREAD if question.within is None else question.within
    if question.seeds:
        report = over_seeds(plain, question.seeds, name=name, steps=question.steps, within=limit)
    elif question.threads:
        report = over_threads(plain, question.threads, name=name, steps=question.steps, within=limit)
    else:
        report = repeat(plain, name=name, steps=question.steps, within=question.within or 0.0)
    stem = f"audit-{report.kind}" if run is not None else f"audit-{name}-{report.kind}"
    return _written(report, question.output or run or Path(), stem=stem)


def _with_folders(question: Question) -> Question:
    """The same question with the folders of runs that were given by name."""
    from litgpt_core.runs.folders import folder_of

    what = list(question.what)
    if what and not question.experiment:
        what[0] = str(folder_of(what[0]))
    return dataclasses.replace(
        question,
        what=what,
        compare=question.compare and [folder_of(path) for path in question.compare],
        config_diff=question.config_diff and [folder_of(path) for path in question.config_diff],
        command=question.command and folder_of(question.command),
    )


def _refuse_two(question: Question) -> None:
    asked: dict[str, Any] = {
        "--compare": question.compare,
        "--config_diff": question.config_diff,
        "--command": question.command,
        "--environment_info": question.environment_info,
        "a run or --experiment": question.experiment or question.what or None,
    }
    given = [name for name, value in asked.items() if value is not None]
    if len(given) != 1:
        raise ConfigError(
            "no run and no option given" if not given else f"{' and '.join(given)} given at once",
            needed="exactly one of them",
            fix="lcp audit runs/NAME, or --help",
        )
    if question.seeds and question.threads:
        raise ConfigError("--seeds and --threads given at once", needed="one of them")
    if not question.experiment and question.what and "=" in question.what[0]:
        raise ConfigError(
            f"{question.what[0]} is a setting, but there is no run or experiment that it belongs to",
            needed="a run folder or --experiment before it",
            fix=f"lcp audit --experiment smoke {' '.join(question.what)}",
        )


def _written(report: Any, folder: Path, *, stem: str) -> AuditAnswer:
    paths = report.write(folder, stem=stem)
    verdict = f"{'PASS' if report.passed else 'FAIL'}: {report.verdict}"
    remarks = [f"  note: {remark}" for remark in report.remarks]
    causes = []
    if not report.passed and report.likely_causes is not None:
        causes = [f"  likely cause: {c.what}: {c.one} -> {c.other} ({c.why})" for c in report.likely_causes]
        causes = causes or ["  no likely cause: nothing recorded differs between the environments"]
    where = f"report: {' '.join(path.as_posix() for path in paths)}"
    return AuditAnswer(lines=[verdict, *causes, *remarks, where], exit_code=0 if report.passed else 1)
