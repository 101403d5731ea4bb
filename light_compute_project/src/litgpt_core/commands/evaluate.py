"""Measure checkpoints on text and on suites of items, compare them, compress files with them."""

from __future__ import annotations

from litgpt_core.evaluate.command import main

__all__ = ["main"]
