"""Check in seconds that the model is right on this machine: shapes, causality, gradients, cache, and that it learns.

python light_compute_project/scripts/smoke_test.py

Needs no data and no network. Exit code 0 if all checks pass, 1 if one fails.
"""

from __future__ import annotations

import argparse
import sys


def main() -> int:
    """Parse, run every check, print a table."""
    arguments = _parser().parse_args()
    from litgpt_core.errors import LightComputeError  # torch is imported below, after --help has been answered

    try:
        return _run(threads=arguments.threads)
    except LightComputeError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        return 130


def _run(*, threads: int) -> int:
    import torch
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from litgpt_core.analysis.model_checks import run_model_checks

    torch.set_num_threads(threads)
    console = Console()
    table = Table(title=f"Model checks, torch {torch.__version__} on CPU", title_justify="left")
    for header in ("check", "result", "seconds", "detail"):
        table.add_column(header, justify="right" if header == "seconds" else "left")
    results = []
    with console.status("running") as status:
        for result in run_model_checks():
            results.append(result)
            status.update(f"{result.name}: done")
            verdict = "[green]passed[/]" if result.passed else "[red]FAILED[/]"
            table.add_row(result.name, verdict, f"{result.seconds:.2f}", escape(result.detail))
    console.print(table)
    failed = [result.name for result in results if not result.passed]
    total = sum(result.seconds for result in results)
    console.print(f"{len(results) - len(failed)} of {len(results)} passed in {total:.1f} s", highlight=False)
    return 1 if failed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="CPU threads; the models are tiny (1)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
