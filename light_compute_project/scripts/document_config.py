"""Rewrite the reference tables in docs/configuration.md from the settings classes. A test fails while they differ."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from litgpt_core.core.console import run_script


def main() -> int:
    """Render, rewrite, say whether anything changed."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from docs.generate.config_tables import PAGE, update

    changed = update()
    sys.stdout.write(f"{PAGE.name}: {'rewritten' if changed else 'already up to date'}\n")
    return 0


if __name__ == "__main__":
    run_script(main)
