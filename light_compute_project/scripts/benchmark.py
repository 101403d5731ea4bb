"""Race this project against its peers in one command, and keep the result: a table, a JSON and a bar chart.

uv run python light_compute_project/scripts/benchmark.py train --shape small --against litgpt,litgpt-bf16
"""

from __future__ import annotations

import sys
from pathlib import Path

from litgpt_core.core.console import run_script


def main() -> int:
    """Parse, race, print."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from benchmarks.command import parse, run

    return run(parse(sys.argv[1:], description=__doc__ or ""), typed=sys.argv)


if __name__ == "__main__":
    run_script(main)
