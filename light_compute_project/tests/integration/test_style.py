"""Format, lint and types, with the settings of pyproject.toml: what `make check` runs, as tests."""

from __future__ import annotations

import shutil
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
        pytest.param(
            ["mypy", "--cache-dir", "/dev/null" if sys.platform != "win32" else "nul"], marks=pytest.mark.nightly
        ),
    ],
    ids=["format", "lint", "types"],
)
def test_the_tree_is_clean(command: list[str]) -> None:
    done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_tree_of_litgpts_at_the_root_is_not_ours_to_check(tmp_path: Path) -> None:
    """A fork that brought it in has `litgpt/` beside our folder, where mypy would take it for our own."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    source = tmp_path / "light_compute_project" / "src"
    (tmp_path / "litgpt").mkdir()
    for folder in ("src", "benchmarks", "docs/generate"):
        (source.parent / folder).mkdir(parents=True)
        (source.parent / folder / "ours.py").touch()
    (tmp_path / "litgpt" / "__init__.py").touch()
    (tmp_path / "litgpt" / "utils.py").write_text("def untyped(x):\n    return x\n")
    (source / "ours.py").write_text("from litgpt.utils import untyped\n\nfound = untyped(1)\n")
    command = [sys.executable, "-m", "mypy", "--cache-dir", str(tmp_path / "cache")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
