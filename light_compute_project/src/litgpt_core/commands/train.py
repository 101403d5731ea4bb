"""Train a model from a config, or with `-m` every combination of values."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from litgpt_core.core.command_line import command_for_record, program_of, wants_help
from litgpt_core.deploy.retired_launcher import is_for_launcher, refuse_launcher
from litgpt_core.training.usage import composed, shows_config, usage

if TYPE_CHECKING:
    from litgpt_core.model.gpt import GPT
    from litgpt_core.training.plan import Plan
    from litgpt_core.training.runner import RunResult


def main(arguments: Sequence[str]) -> int:
    """Compose, check, train, print the closing table."""
    if wants_help(arguments):
        sys.stdout.write(usage(program_of("train")))
        return 0
    if any(map(is_for_launcher, arguments)):
        return refuse_launcher(arguments)
    if shows_config(arguments):
        sys.stdout.write(composed(arguments))
        return 0
    if {"-m", "--multirun"} & set(arguments):
        from litgpt_core.search.sweep import sweep

        return sweep([a for a in arguments if a not in ("-m", "--multirun")])
    from litgpt_core.training.start import train

    result = train(arguments, command=command_for_record("train", arguments), measure_of=_measure_of)
    if isinstance(result, int):
        return result  # the processes it started have printed everything
    if result.summary:  # of rank 0
        _print_results(result)
    return 0


def _print_results(result: RunResult) -> None:
    from rich.console import Console

    from litgpt_core.training.results import closing_table, next_commands

    console = Console()
    console.print()
    console.print(closing_table(result.summary))
    if "before_after" in result.summary:
        from litgpt_core.training.before_after import comparison_table

        for table in comparison_table(result.summary["before_after"]):
            console.print(table)
    console.print("\nnext:")
    for what, command in next_commands(result.folder.path, result.summary):
        console.print(f"  [dim]{what:<24}[/] {command}", soft_wrap=True, highlight=False)


def _measure_of(plan: Plan) -> Callable[[GPT], dict[str, float]]:
    from litgpt_core.evaluate.during_training import suite_measure  # imported only where suites are scored

    return suite_measure(plan)
