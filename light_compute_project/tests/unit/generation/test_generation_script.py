"""scripts/generate.py as a person uses it: another process, its streams and its exit code."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[3] / "scripts" / "generate.py"


def run(*arguments: object, **more: object) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8"}
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, encoding="utf-8", timeout=120, env=environment, **more)


def test_help_does_not_wait_for_torch():
    code = (
        "import runpy, sys\n"
        "script = sys.argv[1]\n"
        "sys.argv = [script, '--help']\n"
        "try: runpy.run_path(script, run_name='__main__')\n"
        "except SystemExit as end: sys.exit(int(end.code or 'torch' in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(SCRIPT)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--max_new_tokens" in done.stdout


def test_text_goes_to_stdout_and_figures_to_stderr(directory):
    arguments = (
        directory.parent,
        "--prompt",
        "def ",
        "--max_new_tokens",
        8,
        "--seed",
        1,
        "--num_samples",
        2,
        "--no-stop_at_eos",
    )
    done = run(*arguments, "--device", "cpu")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("def ") and done.stdout.count("def ") == 2
    lines = done.stderr.splitlines()
    assert len(lines) == 2
    assert re.fullmatch(r"8 tokens, \d+\.\d{3} s to the first, \d+\.\d tokens/s after it", lines[0])


def test_mistakes_are_answered_without_a_traceback(directory):
    done = run(directory.parent.parent / "smal")
    assert done.returncode == 2
    assert "did you mean" in done.stderr and "Traceback" not in done.stderr
    done = run(directory, "--temperature", -1, "--top_p", 2)
    assert done.returncode == 2
    assert "temperature=-1.0, top_p=2.0" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.skipif(os.name == "nt", reason="SIGINT to another process is POSIX")
def test_ctrl_c_stops_with_130(directory):
    command = [sys.executable, str(SCRIPT), str(directory), "--max_new_tokens", "1000000", "--no-stop_at_eos"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.read(20)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.decode().strip() == "stopped"
