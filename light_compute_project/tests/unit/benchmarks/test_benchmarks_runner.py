"""The order of trials, steady state, and one child process after another."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from benchmarks.processes import run_measured
from benchmarks.runner import Measurement, RunSpec, order_of_round, run_rounds, steady_seconds

from litgpt_core.core.errors import EnvironmentProblem


def test_every_round_holds_every_program_and_begins_with_another() -> None:
    rounds = [order_of_round(["a", "b", "c"], index) for index in range(4)]
    assert rounds == [["a", "b", "c"], ["b", "c", "a"], ["c", "a", "b"], ["a", "b", "c"]]


def test_steady_state_leaves_the_first_half_out() -> None:
    assert steady_seconds([90.0, 80.0, 70.0, 1.0, 3.0, 2.0], name="x") == 2.0
    assert steady_seconds([9.0, 1.0, 5.0], name="x") == 3.0


def test_too_few_step_times_are_an_error_that_names_the_program() -> None:
    with pytest.raises(EnvironmentProblem, match="nanogpt reported 2 step times"):
        steady_seconds([1.0, 1.0], name="nanogpt")


def python(label: str, code: str) -> RunSpec:
    return RunSpec(
        label=label,
        describes="",
        command=lambda folder: [sys.executable, "-c", code],
        read=lambda folder, output: Measurement(tokens_per_s=float(output), precision="fp32"),
    )


def test_trials_alternate_and_each_program_has_each_its_own_folder_and_cache(tmp_path: Path) -> None:
    code = "import os; open('left', 'w').write(os.environ['TORCHINDUCTOR_CACHE_DIR']); print({})"
    specs = [python("a", code.format(5)), python("b", code.format(7))]
    trials = run_rounds(specs, rounds=2, folder=tmp_path, environment={"OMP_NUM_THREADS": "1"}, timeout_s=60)
    assert [(trial.round, trial.label, trial.measurement.tokens_per_s) for trial in trials] == [
        (1, "a", 5.0),
        (1, "b", 7.0),
        (2, "b", 7.0),
        (2, "a", 5.0),
    ]
    caches = {name: (tmp_path / name / "left").read_text() for name in ("a-1", "a-2", "b-1", "b-2")}
    assert caches["a-1"] == caches["a-2"] != caches["b-1"] == caches["b-2"]


def test_two_programs_may_not_share_a_label(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem, match="same label"):
        run_rounds([python("a", ""), python("a", "")], rounds=1, folder=tmp_path, environment={}, timeout_s=60)


PROJECT = Path(__file__).resolve().parents[3]
MEASURE_TWO = f"""
import json, pathlib, sys
sys.path.insert(0, {str(PROJECT)!r})
from benchmarks.processes import run_measured
for code in ("pass", "x = bytearray(b'1' * 300_000_000)"):
    command = [sys.executable, "-c", code]
    done = run_measured(command, folder=pathlib.Path("."), environment={{}}, timeout_s=60, name="x")
    print(json.dumps([done.peak_mb, done.tree_mb, done.wall_s]))
"""


def test_peak_memory_is_that_of_the_child(tmp_path: Path) -> None:
    # from a small process, as the command is: Linux hands a parent's peak on to the child's until that is larger
    printed = subprocess.run(
        [sys.executable, "-c", MEASURE_TWO], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=120
    ).stdout
    (quiet_peak, _, quiet_wall), (hungry_peak, hungry_tree, _) = map(json.loads, printed.splitlines())
    assert hungry_peak - quiet_peak > 250
    assert hungry_tree >= hungry_peak
    assert 0 < quiet_wall < 30


def test_a_program_that_fails_ends_the_benchmark_with_its_error_output(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem, match=r"b ended with 3:\nno such flag"):
        run_measured(
            [sys.executable, "-c", "print('no such flag'); raise SystemExit(3)"],
            folder=tmp_path,
            environment={},
            timeout_s=60,
            name="b",
        )


def test_a_program_that_hangs_is_ended(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem, match="took longer than 1 s"):
        run_measured(
            [sys.executable, "-c", "import time; time.sleep(60)"],
            folder=tmp_path,
            environment={},
            timeout_s=1.2,
            name="sleeper",
        )


def test_a_program_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem, match="could not be started"):
        run_measured([str(tmp_path / "absent")], folder=tmp_path, environment={}, timeout_s=5, name="x")
