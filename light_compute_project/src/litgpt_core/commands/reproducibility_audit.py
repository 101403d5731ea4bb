"""Is this run reproducible? Replays it and reports "identical", or the first step and quantity that differ.

    lcp audit RUN [--steps N] [KEY=VALUE ...]       replay the first steps of a run and compare every number
    lcp audit --experiment smoke [KEY=VALUE ...]    without a run: train the first steps twice
        ... --seeds 1,2,3                           spread of the validation loss over seeds
        ... --threads 1,2                           effect of the number of CPU threads
    lcp audit --compare RUN_A RUN_B                 two runs: settings, environments, every row of metrics
    lcp audit --config_diff RUN_A RUN_B             two runs: settings only
    lcp audit --command RUN                         the command that reproduces a run; its data is checked
    lcp audit --environment_info [FILE]             write environment_info.md for this machine

Reports are Markdown and JSON, in the run folder or in --output. Exit code 0 pass, 1 fail, 2 bad input.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from litgpt_core.core.checkout import in_checkout
from litgpt_core.core.command_line import CommandParser


def main(arguments: Sequence[str]) -> int:
    """Parse, run one audit, print the result."""
    parser = CommandParser("audit", description=__doc__)
    parser.add_argument("what", nargs="*", metavar="RUN | KEY=VALUE", help="a run folder, and settings to change")
    parser.add_argument("--experiment", metavar="NAME", help="an experiment of configs/experiment instead of a run")
    parser.add_argument("--steps", type=int, metavar="N", help="number of steps (default: chosen from the run)")
    parser.add_argument("--seeds", type=_numbers, metavar="1,2,3", help="train once with each seed")
    parser.add_argument("--threads", type=_numbers, metavar="1,2", help="train once with each number of threads")
    parser.add_argument(
        "--within",
        type=float,
        metavar="PERCENT",
        help="largest relative difference that passes (0 for a replay, 1 for seeds and threads)",
    )
    parser.add_argument("--compare", nargs=2, type=Path, metavar=("RUN_A", "RUN_B"))
    parser.add_argument("--config_diff", nargs=2, type=Path, metavar=("RUN_A", "RUN_B"))
    parser.add_argument("--command", type=Path, metavar="RUN")
    parser.add_argument("--environment_info", nargs="?", type=Path, const=Path(), metavar="FILE")
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="folder for the report")
    from litgpt_core.audit.question import Question, answer

    given = vars(parser.parse_args(arguments))
    if given["environment_info"] == Path() and not in_checkout():
        given["environment_info"] = Path("environment_info.md")  # there is no page of the project's to rewrite
    given["within"] = None if given["within"] is None else given["within"] / 100
    answered = answer(Question(**given))
    print("\n".join(answered.lines))
    return answered.exit_code


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]
