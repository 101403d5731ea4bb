"""Compare this project with nanoGPT, LitGPT, transformers and llama.cpp: a table, a JSON file and a chart.

lcp benchmark train --shape small --against litgpt,litgpt-bf16
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from litgpt_core.core.checkout import PROJECT_DIR
from litgpt_core.core.command_line import command_for_record


def main(arguments: Sequence[str]) -> int:
    """Parse, measure, print."""
    sys.path.insert(0, str(PROJECT_DIR))
    from benchmarks.command import run
    from benchmarks.options import parse

    return run(parse(arguments, description=__doc__ or "", command=command_for_record("benchmark", arguments)))
