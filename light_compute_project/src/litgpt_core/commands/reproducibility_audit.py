"""Is a run reproducible? Replay its first steps and report "identical", or the first step and quantity that differ.

    lcp audit RUN [--steps N] [KEY=VALUE ...]     replay a run's first steps and compare every number
    lcp audit --experiment smoke [KEY=VALUE ...]  without a run: train the first steps twice and compare
        ... --seeds 1,2,3                         spread of the validation loss over seeds
        ... --threads 1,2                         effect of the number of CPU threads
    lcp audit --compare RUN_A RUN_B               compare two runs: settings, environments, every row
    lcp audit --config_diff RUN_A RUN_B           compare settings only
    lcp audit --command RUN                       print the command that repeats a run, after checking its data
    lcp audit --environment_info [FILE]           write environment_info.md for this machine

Reports are written as Markdown and JSON into the run folder or --output.
Exit code 0: pass, 1: fail, 2: invalid input.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from litgpt_core.core.checkout import in_checkout
from litgpt_core.core.command_line import CommandParser


def main(arguments: Sequence[str]) -> int:
    """Parse, run one audit, print the result."""
    parser = CommandParser("audit", description=__doc__)
    parser.add_argument("what", nargs="*", metavar="RUN | KEY=VALUE", help="a run folder, then overrides")
    parser.add_argument("--experiment", metavar="NAME", help="an experiment of configs/experiment instead of a run")
    parser.add_argument(
        "--steps", type=int, metavar="N", help="number of steps (default: first validation or 50; 20 without a run)"
    )
    parser.add_argument("--seeds", type=_numbers, metavar="1,2,3", help="train once per seed")
    parser.add_argument("--threads", type=_numbers, metavar="1,2", help="train once per number of threads")
    parser.add_argument(
        "--within",
        type=float,
        metavar="PERCENT",
        help="largest relative difference that passes (default: 0 for a replay, 1 for seeds and threads)",
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
