"""A forked script sees what a started one sees, and ends as one does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = """
import atexit, os, pathlib, sys, threading
atexit.register(lambda: print("at exit", flush=True))
threading.Timer(0.1, lambda: print("thread", flush=True)).start()
print(sys.argv, os.getcwd(), sys.path[0], os.environ["GIVEN"], "PYTEST_CURRENT_TEST" in os.environ, sys.stdin.read())
print(__name__, __file__, pathlib.Path("there").exists(), file=sys.stderr)
ending = sys.argv[1]
if ending == "error": raise ValueError("bad value")
if ending == "text": sys.exit("a last sentence")
if ending == "3": sys.exit(3)
"""


@pytest.fixture
def script(shell: Any) -> list[str]:
    path = Path(shell.folder) / "script.py"
    path.write_text(SCRIPT)
    (path.parent / "there").touch()
    shell.environment["GIVEN"] = "a value"
    shell.environment.pop("PYTEST_CURRENT_TEST", None)
    return [sys.executable, str(path)]


@pytest.mark.skipif(sys.platform != "linux", reason="forks on Linux only")
@pytest.mark.parametrize(("ending", "code"), [("none", 0), ("3", 3), ("text", 1), ("error", 1)])
def test_as_a_started_one(forks: Any, shell: Any, script: list[str], ending: str, code: int) -> None:
    assert forks.can_run(script, shell.environment)
    forked = forks.run([*script, ending], folder=shell.folder, environment=shell.environment, timeout=60)
    started = subprocess.run(
        [*script, ending],
        cwd=shell.folder,
        env=shell.environment,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    assert forked.returncode == started.returncode == code
    assert sorted(forked.stdout.splitlines()) == sorted(started.stdout.splitlines())
    first, last = started.stderr.splitlines()[0], started.stderr.splitlines()[-1]
    assert forked.stderr.splitlines()[0] == first and forked.stderr.splitlines()[-1] == last


@pytest.mark.skipif(sys.platform != "linux", reason="forks on Linux only")
def test_one_that_never_ends_is_ended_and_the_next_runs(forks: Any, shell: Any, script: list[str]) -> None:
    (Path(shell.folder) / "script.py").write_text("import time\ntime.sleep(600)\n")
    with pytest.raises(subprocess.TimeoutExpired):
        forks.run(script, folder=shell.folder, environment=shell.environment, timeout=0.5)
    (Path(shell.folder) / "script.py").write_text("print('next')\n")
    done = forks.run(script, folder=shell.folder, environment=shell.environment, timeout=60)
    assert (done.returncode, done.stdout) == (0, "next\n")


def test_what_a_library_reads_at_its_import_needs_a_real_start(forks: Any, shell: Any, script: list[str]) -> None:
    assert not forks.can_run(script, {**shell.environment, "TORCHDYNAMO_DISABLE": "1"})
    assert not forks.can_run(["python", *script[1:]], shell.environment)
    assert not forks.can_run([sys.executable, "-c", "print()"], shell.environment)
