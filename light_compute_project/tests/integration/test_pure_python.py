"""What docs/pure_python.md has the reader run: the one file alone in a bare interpreter, and the example."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]


def write_names(path: Path, count: int) -> None:
    rng = random.Random(0)
    syllables = ["an", "bel", "da", "el", "fi", "li", "ma", "na", "ro", "so"]
    path.write_text("\n".join("".join(rng.choices(syllables, k=3)) for _ in range(count)), encoding="utf-8")


def test_microgpt_alone(tmp_path: Path) -> None:
    """`python -I -S` in an empty folder: no package of any kind can be imported."""
    shutil.copy(PROJECT / "src" / "litgpt_core" / "pure" / "microgpt.py", tmp_path)
    write_names(tmp_path / "names.txt", 50)
    command = [sys.executable, "-I", "-S", "microgpt.py", "names.txt", "25"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    report, *names = done.stdout.splitlines()[-11:]
    assert report.startswith("   25 names, loss of the last 200: ")
    assert len(names) == 10


def test_the_example_writes_the_same_names_with_and_without_torch(tmp_path: Path) -> None:
    write_names(tmp_path / "names.txt", 150)
    command = [sys.executable, str(PROJECT / "examples" / "07_pure_python.py"), "names.txt"]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
    )
    assert done.returncode == 0, done.stderr
    without, with_torch = (line.split(": ", 1)[1].strip() for line in done.stdout.splitlines() if "torch:" in line)
    assert without == with_torch
    assert len(without.split()) >= 5
    assert (tmp_path / "runs" / "names" / "lit_model.pth").is_file()
