"""For every test: which tests a run takes (`--pass`, `--nightly`), and the repetition of what fails in the serial pass.

A test marked `serial` sends signals, starts processes that wait for each other, or drives a browser: on a machine that
does other things at the same time a moment may be missed. `make test` therefore runs these after all others, one at a
time. What fails there is repeated once, in a process of its own, and reported either way; a second failure counts.
A test marked `nightly` is slow and rare: it runs with `--nightly`, or where `-m` names the mark.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from litgpt_core.core import console

FAILED = pytest.StashKey[list[str]]()
"""Node ids of the tests that failed in this session, once each."""
REPEATED = pytest.StashKey[list[tuple[str, str | None]]]()
"""Node id of each test that was repeated, and the output of its second failure, None if it passed."""
REPETITION_SECONDS = 900


@pytest.fixture(autouse=True)
def _scripts_end_by_an_exception(monkeypatch: pytest.MonkeyPatch) -> None:
    """A script that is called in this process must not end it for good."""
    monkeypatch.setattr(console, "_leave", sys.exit)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("light compute")
    group.addoption("--nightly", action="store_true", help="run the tests marked nightly too")
    group.addoption(
        "--pass",
        dest="which_pass",
        choices=("parallel", "serial"),
        help="parallel: without the tests marked serial; serial: only these, a failure is repeated once, alone",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.stash[FAILED] = []
    config.stash[REPEATED] = []


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """The serial pass does not import files in which nothing is marked serial: most of them, for most of its start."""
    if config.getoption("which_pass") != "serial" or collection_path.suffix != ".py":
        return None
    return True if "mark.serial" not in collection_path.read_text(encoding="utf-8") else None


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect what belongs to the other pass, and nightly tests where nobody asks for them.

    The long files, those of `integration/`, come first, so that parallel workers share short files at the end.
    """
    items.sort(key=lambda item: "integration" not in item.path.parts)
    which = config.getoption("which_pass")
    nightly = config.getoption("nightly") or "nightly" in config.getoption("markexpr")

    def wanted(item: pytest.Item) -> bool:
        serial = item.get_closest_marker("serial") is not None
        other_pass = "parallel" if serial else "serial"
        return which != other_pass and (nightly or item.get_closest_marker("nightly") is None)

    if left_out := [item for item in items if not wanted(item)]:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if wanted(item)]


class _Reports:
    """Collects failures. Registered in the serial pass only, which has one process."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        failed = self.config.stash[FAILED]
        if report.failed and report.nodeid not in failed:
            failed.append(report.nodeid)


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    if session.config.getoption("which_pass") == "serial":
        session.config.pluginmanager.register(_Reports(session.config))


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Repeat what failed in the serial pass. A pass in which nothing is left to run is none that failed."""
    config = session.config
    if config.getoption("which_pass") is None:
        return
    if exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED:
        session.exitstatus = pytest.ExitCode.OK
    if exitstatus != pytest.ExitCode.TESTS_FAILED or config.getoption("which_pass") != "serial":
        return
    config.stash[REPEATED] = [(name, _repeat(config, name)) for name in config.stash[FAILED]]
    stopped_early = bool(session.shouldfail or session.shouldstop)
    if not stopped_early and all(output is None for _, output in config.stash[REPEATED]):
        session.exitstatus = pytest.ExitCode.OK


def _repeat(config: pytest.Config, name: str) -> str | None:
    """Run one test in a new process. None if it passes, else what that process said."""
    command = [sys.executable, "-m", "pytest", "--nightly", "--rootdir", str(config.rootpath), "-q", name]
    try:
        done = subprocess.run(
            command, cwd=config.rootpath, capture_output=True, text=True, errors="replace", timeout=REPETITION_SECONDS
        )
    except subprocess.TimeoutExpired:
        return f"no end after {REPETITION_SECONDS} s"
    return None if done.returncode == 0 else done.stdout[-20_000:] + done.stderr[-5_000:]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for name, output in config.stash[REPEATED]:
        if output is not None:
            terminalreporter.section(f"repeated alone, failed again: {name}")
            terminalreporter.write_line(output)
    if config.stash[REPEATED]:
        terminalreporter.section("repeated", sep="!", red=True, bold=True)
    for name, output in config.stash[REPEATED]:
        ending = "passed when repeated alone" if output is None else "failed again when repeated alone"
        terminalreporter.write_line(f"REPEATED: {name} failed once and {ending}", red=True, bold=True)
