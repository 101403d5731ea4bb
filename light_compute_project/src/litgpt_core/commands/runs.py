"""Read run folders: list, table, compare, plot, best."""

from __future__ import annotations

from litgpt_core.runs.command import main

__all__ = ["main"]
