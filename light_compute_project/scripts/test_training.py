"""Check on a new machine that training works: a real short run is trained, killed, resumed, loaded and sampled.

uv run python light_compute_project/scripts/test_training.py [trainer.accelerator=cuda ...]

Needs no network and no account; leaves nothing behind. Exit code 0 if all checks pass, 1 if one fails.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from litgpt_core.core.console import run_script


def main() -> int:
    """Run every check in a temporary folder and print a table."""
    if {"-h", "--help"} & set(sys.argv[1:]):
        sys.stdout.write(__doc__ or "")
        return 0
    from litgpt_core.doctor.results import show_results
    from litgpt_core.doctor.training_checks import run_training_checks

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        results = run_training_checks(Path(folder), overrides=tuple(sys.argv[1:]))
        return 0 if show_results(results, title="Training checks: the smoke experiment") else 1


if __name__ == "__main__":
    run_script(main)
