"""A check of the verification scripts: run, timed, its result as a row of a table."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from litgpt_core.core.errors import LightComputeError


@dataclass(frozen=True, kw_only=True)
class CheckResult:
    """What one check found."""

    name: str
    passed: bool
    detail: str
    """What was measured, or what went wrong."""
    seconds: float


class CheckFailed(Exception):
    """A property does not hold; the message says where."""


def run_check(name: str, body: Callable[[], str]) -> CheckResult:
    """Run a function that returns what it measured, or raises; whatever it raises is reported, not passed on."""
    start = time.perf_counter()
    try:
        passed, detail = True, body()
    except Exception as error:
        own = isinstance(error, (CheckFailed, LightComputeError))
        passed, detail = False, str(error) if own else f"{type(error).__name__}: {error}"
    return CheckResult(name=name, passed=passed, detail=detail, seconds=time.perf_counter() - start)


def show_results(results: Iterable[CheckResult], *, title: str) -> bool:
    """Run the checks that `results` yields, print them as a table, and tell whether all passed."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console, done = Console(), []
    table = Table(title=title, title_justify="left")
    for header in ("check", "result", "seconds", "detail"):
        table.add_column(header, justify="right" if header == "seconds" else "left")
    with console.status("running") as status:
        for result in results:
            done.append(result)
            status.update(f"{result.name}: done")
            verdict = "[green]passed[/]" if result.passed else "[red]FAILED[/]"
            table.add_row(result.name, verdict, f"{result.seconds:.2f}", escape(result.detail))
    console.print(table)
    passed = [result for result in done if result.passed]
    total = sum(result.seconds for result in done)
    console.print(f"{len(passed)} of {len(done)} passed in {total:.1f} s", highlight=False)
    return len(passed) == len(done)
