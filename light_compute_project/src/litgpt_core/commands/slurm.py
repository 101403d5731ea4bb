"""Queue a training on a SLURM cluster: check it here, print the sbatch script, or submit it. -m: a sweep as an array.

lcp slurm +experiment=baseline --gpus_per_node 4 --time 12h --partition gpu --submit

The job saves two minutes before its time limit, is requeued and continues where it stopped.
More: light_compute_project/docs/slurm.md
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from litgpt_core.deploy.slurm import carry_out, parse


def main(arguments: Sequence[str]) -> int:
    """Parse, check, show or submit."""
    sys.stdout.write(carry_out(parse(arguments, description=__doc__ or "")))
    return 0
