"""Every notebook of the course runs from top to bottom, in its quick mode."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"


@pytest.fixture(scope="module")
def course_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the notebooks keep the model that they share."""
    return tmp_path_factory.mktemp("course")


@pytest.mark.nightly
@pytest.mark.parametrize("name", sorted(path.name for path in NOTEBOOKS.glob("[0-9]_*.py")))
def test_a_notebook_runs(name: str, course_folder: Path) -> None:
    more = {"COURSE_QUICK": "1", "COURSE_FOLDER": str(course_folder), "MPLBACKEND": "agg", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(NOTEBOOKS / name)]
    done = subprocess.run(command, env=os.environ | more, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
