"""Make a LitGPT directory of a checkpoint whose weights lie in the parts of several processes."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from litgpt_core.core.console import run_script


def main() -> None:
    """Read arguments, gather, say what to do next."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path, help="runs/NAME, or runs/NAME/checkpoints/step-...")
    parser.add_argument("target", type=Path, help="the folder to make")
    arguments = parser.parse_args()
    from litgpt_core.checkpoint.consolidate import consolidate

    made = consolidate(arguments.checkpoint, arguments.target)
    logger = logging.getLogger("litgpt_core.consolidate")
    logger.info("%s is a LitGPT directory now", made)
    logger.info("  continue a prompt: uv run python light_compute_project/scripts/generate.py %s", made)


if __name__ == "__main__":
    run_script(main)
