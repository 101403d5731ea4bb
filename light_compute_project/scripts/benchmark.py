"""Compare this project with nanoGPT, LitGPT, transformers and llama.cpp: a table, a JSON file and a chart.

uv run python light_compute_project/scripts/benchmark.py train --shape small --against litgpt,litgpt-bf16
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from litgpt_core.core.console import run_script


def main() -> int:
    """Parse, measure, print."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from benchmarks.command import run
    from benchmarks.options import parse

    return run(parse(sys.argv[1:], description=__doc__ or "", command=shlex.join(["python", *sys.argv])))


if __name__ == "__main__":
    run_script(main)
