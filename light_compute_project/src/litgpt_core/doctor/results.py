"""What a check found, and the table that the verification scripts print."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class CheckResult:
    """What one check found."""

    name: str
    passed: bool
    detail: str
    """What was measured, or what went wrong."""
    seconds: float


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
