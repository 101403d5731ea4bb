"""Something is off? One command looks at everything: Python, packages, torch, GPU, LitGPT, disk, configs, git.

    uv run python light_compute_project/scripts/doctor.py

Each line is ok, warn or fail, with what to type. Nothing is changed. Exit code 1 if a line fails, 0 otherwise.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

from litgpt_core.core.console import run_script

ROOT = Path(__file__).resolve().parents[2]


def main() -> int:
    """Parse, examine, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    from litgpt_core.doctor.checks import examine, render

    levels: Counter[str] = Counter()
    for finding in examine(ROOT, folder=Path.cwd()):
        print(render(finding), flush=True)
        levels[finding.level] += 1
    print(f"{levels['ok']} ok, {levels['warn']} warn, {levels['fail']} fail")
    return 1 if levels["fail"] else 0


if __name__ == "__main__":
    run_script(main)
