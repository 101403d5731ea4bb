"""Before GPUs are rented: does an experiment fit, under which strategy, how fast will it be, what will it cost?

uv run python light_compute_project/scripts/plan.py +experiment=bench_gpu_1b --gpu h100,4090 --gpus 1,8
"""

from __future__ import annotations

import sys

from litgpt_core.core.console import run_script


def main() -> int:
    """Parse, plan, print."""
    from litgpt_core.planning.command import parse, run

    return run(parse(sys.argv[1:], description=__doc__ or ""))


if __name__ == "__main__":
    run_script(main)
