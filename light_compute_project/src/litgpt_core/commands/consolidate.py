"""Make one LitGPT checkpoint directory from a sharded checkpoint.

lcp consolidate runs/NAME my_model
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from litgpt_core.core.command_line import CommandParser, shown_command


def main(arguments: Sequence[str]) -> int:
    """Parse, consolidate, say what to do next."""
    parser = CommandParser("consolidate", description=__doc__)
    parser.add_argument("checkpoint", help="run name, runs/NAME, or runs/NAME/checkpoints/step-...")
    parser.add_argument("target", type=Path, help="the folder to make")
    given = parser.parse_args(arguments)
    from litgpt_core.checkpoint.consolidate import consolidate

    made = consolidate(given.checkpoint, given.target)
    logger = logging.getLogger("litgpt_core.consolidate")
    logger.info("%s is a LitGPT directory now", made)
    logger.info("  continue a prompt: %s", shown_command("generate", str(made)))
    return 0
