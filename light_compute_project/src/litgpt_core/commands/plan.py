"""Estimate memory, time and cost of an experiment on GPUs, and compare the training strategies.

lcp plan +experiment=bench_gpu_1b --gpu h100,4090 --gpus 1,8
"""

from __future__ import annotations

from collections.abc import Sequence


def main(arguments: Sequence[str]) -> int:
    """Parse, plan, print."""
    from litgpt_core.planning.command import parse, run

    return run(parse(arguments, description=__doc__ or ""))
