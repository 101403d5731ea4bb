"""Whether this code runs from a checkout of the repository or from an installed package, and what follows from it.

A checkout has tests, pages, benchmarks and git next to the code. An installed package has none of these, and nothing is
ever written into it: runs, prepared data and settings belong to the current folder.
"""

from __future__ import annotations

from pathlib import Path

PACKAGE_DIR = Path(__file__).resolve().parents[1]
"""The folder of `litgpt_core` itself, wherever it is installed."""

PROJECT_DIR = PACKAGE_DIR.parents[1]
"""The `light_compute_project` folder of a checkout. Without meaning in an installed package."""


def in_checkout() -> bool:
    """Whether this code is in a checkout of the repository."""
    return (PROJECT_DIR / "src" / "litgpt_core").is_dir() and (PROJECT_DIR / "configs" / "train.yaml").is_file()


def working_folder() -> Path:
    """The folder that relative data folders start from: the project's in a checkout, else the current one."""
    return PROJECT_DIR if in_checkout() else Path.cwd()
