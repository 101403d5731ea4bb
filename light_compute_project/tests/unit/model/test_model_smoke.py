"""scripts/smoke_test.py as a user runs it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[3] / "scripts" / "smoke_test.py"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, encoding="utf-8", errors="replace", timeout=300
    )


def test_help_answers_without_torch() -> None:
    done = run("-X", "importtime", str(SCRIPT), "--help")
    assert done.returncode == 0
    assert "--threads" in done.stdout
    assert not re.search(r"\|\s+(torch|rich|yaml)\b", done.stderr)


def test_all_checks_pass_and_the_exit_code_says_so() -> None:
    done = run(str(SCRIPT))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "8 of 8 passed" in done.stdout


def test_a_failed_check_makes_the_exit_code_one() -> None:
    code = (
        "import runpy, sys; from litgpt_core.doctor import model_checks as m;"
        "m.run_model_checks = lambda: iter([m.CheckResult(name='x', passed=False, detail='[bad]', seconds=0.0)]);"
        f"sys.argv = ['smoke_test.py']; runpy.run_path({str(SCRIPT)!r}, run_name='__main__')"
    )
    done = run("-c", code)
    assert done.returncode == 1
    assert "FAILED" in done.stdout
    assert "[bad]" in done.stdout
