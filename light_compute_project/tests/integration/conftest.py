"""Real processes: the scripts as a user starts them, each test in a folder of its own, one corpus cache for all."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.integration.fork_server import ForkServer

PROJECT = Path(__file__).resolve().parents[2]
SCRIPTS = PROJECT / "scripts"

USER_CACHE = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
"""Shared by all processes of the tests, so that the CPU kernel and matplotlib's list of fonts are made once."""


FORKS = ForkServer()


class Shell:
    """Starts scripts in `folder` with a clean environment: no W&B key, a home of its own, the user's cache."""

    def __init__(self, folder: Path, cache: Path) -> None:
        self.folder, self.cache = folder, cache
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith("WANDB_")}
        self.environment["HOME"] = str(folder / "home")
        self.environment["XDG_CACHE_HOME"] = USER_CACHE
        self.environment["PYTHONUNBUFFERED"] = "1"
        (folder / "home").mkdir(exist_ok=True)

    def command(self, script: str, *arguments: str) -> list[str]:
        return [sys.executable, str(SCRIPTS / script), *arguments]

    def train_command(self, *overrides: str) -> list[str]:
        return self.command("train.py", *overrides, f"data.cache_dir={self.cache}")

    def run(self, command: list[str], *, expect: int = 0, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        """Run a script to its end: forked where that makes no difference, see fork_server.py."""
        if FORKS.can_run(command, self.environment):
            done = FORKS.run(command, folder=self.folder, environment=self.environment, timeout=timeout)
        else:
            done = subprocess.run(
                command, cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=timeout
            )
        assert done.returncode == expect, (
            f"exit code {done.returncode}, expected {expect}\n{done.stdout}\n{done.stderr}"
        )
        return done

    def train(self, *overrides: str, expect: int = 0) -> subprocess.CompletedProcess[str]:
        return self.run(self.train_command(*overrides), expect=expect)

    def start_and_signal(
        self, overrides: list[str], *, when: Callable[[], bool], number: signal.Signals, timeout: float = 200
    ) -> subprocess.CompletedProcess[str]:
        """Start a training, send the signal once `when()` is true, wait for the end."""
        process = subprocess.Popen(
            self.train_command(*overrides),
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        deadline = time.monotonic() + timeout
        while not when():
            assert process.poll() is None, f"ended before the signal:\n{process.communicate()[0]}"
            assert time.monotonic() < deadline, "the moment for the signal never came"
            time.sleep(0.01)
        process.send_signal(number)
        output, _ = process.communicate(timeout=timeout)
        return subprocess.CompletedProcess(process.args, process.returncode, output, "")

    def rows(self, run: str) -> list[dict[str, Any]]:
        lines = (self.folder / "runs" / run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines]

    def summary(self, run: str) -> dict[str, Any]:
        content = json.loads((self.folder / "runs" / run / "summary.json").read_text(encoding="utf-8"))
        assert isinstance(content, dict)
        return content


@pytest.fixture(scope="session", autouse=True)
def forks() -> Iterator[ForkServer]:
    yield FORKS
    FORKS.close()


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data-cache")


@pytest.fixture
def shell(tmp_path: Path, cache: Path) -> Shell:
    return Shell(tmp_path, cache)


@pytest.fixture(scope="module")
def module_shell(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Shell:
    return Shell(tmp_path_factory.mktemp("work"), cache)


@pytest.fixture(scope="session")
def mirror() -> Path | None:
    """A folder that holds Tiny Shakespeare, or None where there is none and no network is wanted."""
    candidates = [os.environ.get("LIGHT_COMPUTE_DATA_MIRROR"), str(PROJECT.parent.parent / "shared" / "data")]
    return next((Path(c) for c in candidates if c and (Path(c) / "tiny_shakespeare.txt").is_file()), None)
