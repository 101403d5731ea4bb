"""Check in seconds that the model is right on this machine: shapes, causality, gradients, cache, and that it learns.

lcp smoke

Needs no data and no network. Exit code 0 if all checks pass, 1 if one fails.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from litgpt_core.core.command_line import CommandParser


def main(arguments: Sequence[str]) -> int:
    """Parse, run every check, print a table."""
    given = _parser().parse_args(arguments)
    import torch  # after --help has been answered

    from litgpt_core.doctor.model_checks import run_model_checks
    from litgpt_core.doctor.results import show_results

    torch.set_num_threads(given.threads)
    title = f"Model checks, torch {torch.__version__} on the CPU"
    return 0 if show_results(run_model_checks(), title=title) else 1


def _parser() -> CommandParser:
    parser = CommandParser("smoke", description=__doc__)
    parser.add_argument(
        "--threads", type=_positive, default=1, metavar="N", help="CPU threads; the models are tiny (1)"
    )
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on")
    return int(text)
