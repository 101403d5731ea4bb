"""Train a model from a config: the main door. `train.py --help` lists groups, options and settings."""

from __future__ import annotations

import shlex
import sys

from litgpt_core.core.console import run_script
from litgpt_core.deploy.retired_launcher import is_for_launcher, refuse_launcher
from litgpt_core.training.usage import usage


def main() -> int:
    """Compose, check, train, print the closing table."""
    arguments = sys.argv[1:]
    if {"-h", "--help"} & set(arguments):
        sys.stdout.write(usage())
        return 0
    if any(map(is_for_launcher, arguments)):
        return refuse_launcher(arguments)
    if {"-m", "--multirun"} & set(arguments):
        from litgpt_core.search.sweep import sweep

        return sweep([a for a in arguments if a not in ("-m", "--multirun")])
    from litgpt_core.training.start import train

    result = train(arguments, command=shlex.join(["python", *sys.argv]))
    if isinstance(result, int):
        return result  # the processes it started have said everything
    if not result.summary:
        return 0  # not the first process

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
    return 0


if __name__ == "__main__":
    run_script(main)
