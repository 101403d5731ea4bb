"""Check on a new machine that training works: a real short run is trained, killed, resumed, loaded and sampled.

lcp test_training [trainer.accelerator=cuda ...]

Needs no network and no account; leaves nothing behind. Exit code 0 if all checks pass, 1 if one fails.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from litgpt_core.core.command_line import CommandParser


def main(arguments: Sequence[str]) -> int:
    """Run every check in a temporary folder and print a table."""
    parser = CommandParser("test_training", description=__doc__)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="further settings of every run")
    given = parser.parse_args(arguments)
    from litgpt_core.doctor.results import show_results
    from litgpt_core.doctor.training_checks import run_training_checks

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        results = run_training_checks(Path(folder), overrides=tuple(given.overrides))
        return 0 if show_results(results, title="Training checks: the smoke experiment") else 1
