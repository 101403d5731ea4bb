"""scripts/generate.py as a person uses it: another process, its streams and its exit code."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from litgpt_core import cli
from litgpt_core.generation import Engine, SamplingSettings

SCRIPT = Path(__file__).resolve().parents[3] / "scripts" / "generate.py"


@pytest.fixture
def run(monkeypatch, capsys):
    """`run(*arguments)` -> exit code, stdout, stderr; in this process, because another would import torch again."""

    def _run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            cli.run("generate")
        return end.value.code, *capsys.readouterr()

    return _run


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


def test_text_goes_to_stdout_and_figures_to_stderr(directory, run):
    arguments = (directory.parent, "--prompt", "def ", "--max_new_tokens", 8, "--num_samples", 2, "--no-stop_at_eos")
    code, out, errors = run(*arguments, "--seed", 1, "--device", "cpu")
    assert code == 0
    engine = Engine.from_directory(directory, device="cpu")
    settings = {"max_new_tokens": 8, "sampling": SamplingSettings(temperature=0.8, top_k=50), "stop_ids": ()}
    assert out == "".join(f"def {engine.generate_text('def ', seed=seed, **settings)}\n" for seed in (1, 2))
    figures = [line for line in errors.splitlines() if line.startswith("8 tokens, ")]
    assert len(figures) == 2
    assert re.fullmatch(r"8 tokens, \d+\.\d{3} s to the first, \d+\.\d tokens/s after it", figures[0])
    assert len(re.findall("^decoding on cpu, ", errors, re.MULTILINE)) == 1


def test_searches_and_stop_strings(directory, run):
    arguments = (directory, "--prompt", "def ", "--max_new_tokens", 6, "--device", "cpu")
    code, out, errors = run(*arguments, "--num_beams", 3, "--num_samples", 2)
    assert code == 0 and out.count("def ") == 2 and errors.count("log-probability") == 2
    code, out, errors = run(*arguments, "--contrastive_alpha", 0.5, "--top_k", 4)
    assert code == 0 and out.startswith("def ") and "contrastive search" in errors
    _, whole, _ = run(*arguments, "--no-stop_at_eos")
    stop = whole[6:8]
    _, cut, _ = run(*arguments, "--no-stop_at_eos", "--stop", stop)
    assert cut == whole[: whole.index(stop, 4)] + "\n"


def test_mistakes_are_answered_with_exit_code_2(directory, run):
    code, out, errors = run(directory.parent.parent / "smal")
    assert (code, out) == (2, "")
    assert "did you mean" in errors
    code, _, errors = run(directory, "--temperature", -1, "--top_p", 2)
    assert code == 2
    assert "temperature=-1.0, top_p=2.0" in errors
    assert run(directory, "--device", "cuda:99")[0] == 2


@pytest.mark.serial
@pytest.mark.skipif(os.name == "nt", reason="SIGINT to another process is POSIX")
def test_ctrl_c_stops_with_130(directory):
    command = [sys.executable, str(SCRIPT), str(directory), "--max_new_tokens", "1000000", "--no-stop_at_eos"]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # whatever started the tests in the background made SIGINT ignored, for them and their children
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stdout is not None
    process.stdout.read(20)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.decode().strip().endswith("stopped by Ctrl-C")
    assert "Traceback" not in errors.decode()
