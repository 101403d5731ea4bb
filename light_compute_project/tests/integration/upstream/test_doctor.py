"""The doctor as a newcomer starts it: a line each, an exit code, seconds."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[3] / "scripts" / "doctor.py"


def test_the_doctor_looks_at_everything_and_changes_nothing(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, str(SCRIPT)], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    *lines, last = [line for line in done.stdout.splitlines() if "try: " not in line]
    names = {line[6:23].strip() for line in lines}
    assert {
        "Python",
        "packages",
        "LitGPT",
        "disk",
        "compiler",
        "runs folder",
        "W&B",
        "configs",
        "torch",
        "GPU",
    } <= names
    assert all(re.match(r"(ok|warn|fail) ", line) for line in lines)
    failing = [line for line in lines if line.startswith("fail")]
    assert done.returncode == (1 if failing else 0), done.stderr
    assert last == f"{sum(line.startswith('ok') for line in lines)} ok, " + (
        f"{sum(line.startswith('warn') for line in lines)} warn, {len(failing)} fail"
    )
    assert list(tmp_path.iterdir()) == []
