"""Check in seconds that the model is right on this machine: shapes, causality, gradients, cache, and that it learns.

lcp smoke                  small models of every kind; needs no data and no network
lcp smoke runs/baseline    this checkpoint: files, logits, cache, tokenizer, text

Exit code 0 if all checks pass, 1 if one fails.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from litgpt_core.core.command_line import MODEL_HELP, CommandParser


def main(arguments: Sequence[str]) -> int:
    """Parse, run every check, print a table."""
    given = _parser().parse_args(arguments)
    import torch  # after --help has been answered

    from litgpt_core.doctor.model_checks import run_model_checks
    from litgpt_core.doctor.results import show_results

    torch.set_num_threads(given.threads)
    if given.model is not None:
        from litgpt_core.checkpoint import locate
        from litgpt_core.doctor.checkpoint_checks import CheckpointChecks
        from litgpt_core.export.gguf.cached import with_gguf_imported

        directory = locate(with_gguf_imported(given.model))
        title = f"Checks of {directory.as_posix()}, torch {torch.__version__} on the CPU"
        return 0 if show_results(CheckpointChecks(directory).run(), title=title) else 1
    title = f"Model checks, torch {torch.__version__} on the CPU"
    return 0 if show_results(run_model_checks(), title=title) else 1


def _parser() -> CommandParser:
    parser = CommandParser("smoke", description=__doc__)
    parser.add_argument(
        "model", nargs="?", help=MODEL_HELP.replace("a chat model, else the most recent", "small models")
    )
    parser.add_argument("--threads", type=_positive, default=1, metavar="N", help="CPU threads (1)")
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on")
    return int(text)
