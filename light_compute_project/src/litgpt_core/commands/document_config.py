"""Rewrite the reference tables in docs/configuration.md from the settings classes. A test fails while they differ."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from litgpt_core.core.checkout import PROJECT_DIR
from litgpt_core.core.command_line import CommandParser


def main(arguments: Sequence[str]) -> int:
    """Render, rewrite, say whether anything changed."""
    CommandParser("config", description=__doc__).parse_args(arguments)
    sys.path.insert(0, str(PROJECT_DIR))
    from docs.generate.config_tables import PAGE, update

    changed = update()
    sys.stdout.write(f"{PAGE.name}: {'rewritten' if changed else 'already up to date'}\n")
    return 0
