"""What a run of the tests takes: two passes, nightly tests on request, one reported repetition."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
SETTINGS = """[pytest]
addopts = --strict-markers -p no:cacheprovider
markers =
    serial: x
    nightly: x
    parity: x
"""
SUITE = """
import pathlib, pytest

def attempts():
    file = pathlib.Path("attempts.txt")
    number = len(file.read_text()) if file.exists() else 0
    file.write_text("." * (number + 1))
    return number

def test_plain(): pass

@pytest.mark.serial
def test_alone(): pass

@pytest.mark.nightly
def test_rare(): pass

@pytest.mark.nightly
@pytest.mark.serial
def test_rare_and_alone(): pass
"""
FAILS_ONCE = "\n@pytest.mark.serial\ndef test_sensitive(): assert attempts() > 0\n"
FAILS_TWICE = FAILS_ONCE.replace("> 0", "> 1")
PLAIN_FAILS_ONCE = FAILS_ONCE.replace("@pytest.mark.serial\n", "")


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    shutil.copy(TESTS / "conftest.py", tmp_path)
    (tmp_path / "pytest.ini").write_text(SETTINGS)
    (tmp_path / "test_suite.py").write_text(SUITE)
    return tmp_path


def run(suite: Path, *arguments: str, more: str = "") -> tuple[int, str]:
    (suite / "test_suite.py").write_text(SUITE + more)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # half of the time is plugins
    command = [sys.executable, "-m", "pytest", "-v", *arguments]
    done = subprocess.run(command, cwd=suite, env=environment, capture_output=True, text=True, timeout=120)
    return done.returncode, done.stdout + done.stderr


def passed(output: str) -> set[str]:
    return {line.split("::")[1].split()[0] for line in output.splitlines() if "::" in line and " PASSED" in line}


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        ((), {"test_plain", "test_alone"}),
        (("--pass", "parallel"), {"test_plain"}),
        (("--pass", "serial"), {"test_alone"}),
        (("--nightly",), {"test_plain", "test_alone", "test_rare", "test_rare_and_alone"}),
        (("--nightly", "--pass", "parallel"), {"test_plain", "test_rare"}),
        (("--nightly", "--pass", "serial"), {"test_alone", "test_rare_and_alone"}),
        (("-m", "nightly and not serial"), {"test_rare"}),
        (("--pass", "serial", "-k", "plain"), set()),
        (("--pass", "serial", "-m", "parity"), set()),
    ],
    ids=lambda value: "-".join(value).replace(" ", "") if isinstance(value, tuple) else "",
)
def test_a_run_takes_its_part_and_an_empty_pass_is_no_failure(
    suite: Path, arguments: tuple[str, ...], wanted: set[str]
) -> None:
    code, output = run(suite, *arguments)
    assert (code, passed(output)) == (0, wanted), output


def test_the_serial_pass_does_not_import_files_without_a_serial_test(suite: Path) -> None:
    (suite / "test_other.py").write_text("raise SystemExit('was imported')\n")
    assert run(suite, "--pass", "serial")[0] == 0
    assert run(suite, "--pass", "parallel")[0] != 0


def test_a_failure_in_the_serial_pass_is_repeated_alone_and_reported(suite: Path) -> None:
    code, output = run(suite, "--pass", "serial", more=FAILS_ONCE)
    assert code == 0, output
    assert "REPEATED: test_suite.py::test_sensitive failed once and passed when repeated alone" in output
    assert output.count("REPEATED:") == 1 and (suite / "attempts.txt").read_text() == ".."


def test_a_second_failure_fails_the_run_and_shows_why(suite: Path) -> None:
    code, output = run(suite, "--pass", "serial", more=FAILS_TWICE)
    assert code == 1, output
    assert "REPEATED: test_suite.py::test_sensitive failed once and failed again when repeated alone" in output
    assert (suite / "attempts.txt").read_text() == ".." and output.count("assert 1 > 1") >= 1


@pytest.mark.parametrize("arguments", [("--pass", "parallel"), ()])
def test_nothing_is_repeated_elsewhere(suite: Path, arguments: tuple[str, ...]) -> None:
    code, output = run(suite, *arguments, more=PLAIN_FAILS_ONCE)
    assert code == 1 and "REPEATED" not in output
    assert (suite / "attempts.txt").read_text() == "."


def test_a_run_that_stopped_early_is_not_called_a_success(suite: Path) -> None:
    code, output = run(suite, "--pass", "serial", "-x", more=FAILS_ONCE + "\n@pytest.mark.serial\ndef test_z(): pass\n")
    assert code == 1 and "passed when repeated alone" in output
