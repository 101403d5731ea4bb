"""Format, lint and types, with the settings of pyproject.toml: what `make check` runs, as tests."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize(
    "command",
    [
        ["ruff", "format", "--check", "light_compute_project"],
        ["ruff", "check", "light_compute_project"],
        ["mypy", "--cache-dir", "/dev/null" if sys.platform != "win32" else "nul"],
    ],
    ids=["format", "lint", "types"],
)
def test_the_tree_is_clean(command: list[str]) -> None:
    done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
