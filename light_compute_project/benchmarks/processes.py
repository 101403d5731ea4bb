"""One child process, measured from outside: wall time of the whole command, and peak memory.

The measuring process sleeps nearly all the time, so that it takes nothing from what it measures.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from litgpt_core.core.errors import EnvironmentProblem

POLL_S = 0.02
MEMORY_EVERY = 50
"""Polls between two measurements of the whole process tree's memory."""
ERROR_OUTPUT = 1500
"""Characters of a failed command's output that the error shows."""


@dataclass(frozen=True, kw_only=True)
class ProcessResult:
    """A process that ended with exit code 0."""

    output: str
    """stdout and stderr."""
    wall_s: float
    """From the start of the command to its end."""
    peak_mb: float
    """Peak resident memory of the process itself, as the kernel counts it (10^6 bytes)."""
    tree_mb: float
    """Peak resident memory of the process and its descendants together, sampled once a second."""


def run_measured(
    command: Sequence[str], *, folder: Path, environment: Mapping[str, str], timeout_s: float, name: str
) -> ProcessResult:
    """Run a command to its end.

    Args:
        command: Program and arguments.
        folder: Working directory; the output is kept there as `output.log`.
        environment: Variables added to this process's own.
        timeout_s: Seconds after which the process and its descendants are killed.
        name: Used in errors.

    Raises:
        EnvironmentProblem: The command could not be started, failed or timed out; with the end of its output.
    """
    log = folder / "output.log"
    with log.open("wb") as stream:
        started = time.perf_counter()
        try:
            process = subprocess.Popen(
                list(command), cwd=folder, env={**os.environ, **environment}, stdout=stream, stderr=subprocess.STDOUT
            )
        except OSError as error:
            raise EnvironmentProblem(f"{name} could not be started: {error}", needed=str(command[0])) from None
        try:
            peak_mb, tree_mb = _wait(process, deadline=started + timeout_s)
        finally:
            if process.poll() is None:
                _kill_tree(process)
        wall_s = time.perf_counter() - started
    output = log.read_text(encoding="utf-8", errors="replace")
    if process.returncode:
        late = wall_s >= timeout_s
        problem = f"took longer than {timeout_s:.0f} s" if late else f"ended with {process.returncode}"
        raise EnvironmentProblem(
            f"{name} {problem}:\n{output.strip()[-ERROR_OUTPUT:]}",
            needed="a command that ends in time and without an error",
            fix="--trial_timeout with more seconds" if late else "the same command alone: " + " ".join(command),
        )
    return ProcessResult(output=output, wall_s=wall_s, peak_mb=peak_mb, tree_mb=max(tree_mb, peak_mb))


def _wait(process: subprocess.Popen[bytes], *, deadline: float) -> tuple[float, float]:
    """Wait for the end; `(peak of the process, peak of the tree)` in MB."""
    peak = tree = 0.0
    polls = 0
    while time.perf_counter() < deadline:
        if polls % MEMORY_EVERY == 0:
            own, together = _resident_mb(process.pid)
            peak, tree = max(peak, own), max(tree, together)
        if sys.platform == "win32":
            if process.poll() is not None:
                return peak, tree
        else:
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
            if pid:
                process.returncode = os.waitstatus_to_exitcode(status)
                unit = 1 if sys.platform == "darwin" else 1024
                return usage.ru_maxrss * unit / 1e6, tree
        polls += 1
        time.sleep(POLL_S)
    return peak, tree


def _resident_mb(pid: int) -> tuple[float, float]:
    own = together = 0.0
    with contextlib.suppress(psutil.Error):
        root = psutil.Process(pid)
        own = together = root.memory_info().rss / 1e6
        for child in root.children(recursive=True):
            with contextlib.suppress(psutil.Error):
                together += child.memory_info().rss / 1e6
    return own, together


def _kill_tree(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(psutil.Error):
        for child in psutil.Process(process.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                child.kill()
    process.kill()
    process.wait()


def child_environment(threads: int) -> dict[str, str]:
    """Variables that every measured process gets: the same number of threads, and no network."""
    count = str(threads)
    return {
        "OMP_NUM_THREADS": count,
        "MKL_NUM_THREADS": count,
        "WANDB_MODE": "offline",
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONIOENCODING": "utf-8",
    }


def available_threads() -> int:
    """CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
