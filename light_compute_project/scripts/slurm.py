"""Queue a training on a SLURM cluster: check it here, print the sbatch script, or submit it. -m: a sweep as an array.

python light_compute_project/scripts/slurm.py +experiment=baseline --gpus-per-node 4 --time 12h --partition gpu --submit

The job saves two minutes before its time limit, is requeued and continues where it stopped.
More: light_compute_project/docs/slurm.md
"""

from __future__ import annotations

import sys

from litgpt_core.core.console import run_script
from litgpt_core.deploy.slurm import carry_out, parse


def main() -> int:
    """Parse, check, show or submit."""
    sys.stdout.write(carry_out(parse(sys.argv[1:], description=__doc__ or "")))
    return 0


if __name__ == "__main__":
    run_script(main)
