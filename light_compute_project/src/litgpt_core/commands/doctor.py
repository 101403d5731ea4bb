"""Check this installation: Python, packages, torch, GPU, LitGPT, disk, configs, git.

    lcp doctor

Each line is ok, warn or fail, with the command that fixes it. Nothing is changed.
Exit code 1 if a line fails, 0 otherwise.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from litgpt_core.core.checkout import PROJECT_DIR, in_checkout
from litgpt_core.core.command_line import CommandParser


def main(arguments: Sequence[str]) -> int:
    """Parse, examine, print."""
    CommandParser("doctor", description=__doc__).parse_args(arguments)
    from litgpt_core.doctor.checks import examine, render

    levels: Counter[str] = Counter()
    root = PROJECT_DIR.parent if in_checkout() else None
    for finding in examine(root, folder=Path.cwd()):
        print(render(finding), flush=True)
        levels[finding.level] += 1
    print(f"{levels['ok']} ok, {levels['warn']} warn, {levels['fail']} fail")
    return 1 if levels["fail"] else 0
