"""A server as one program of a benchmark: how it is started, when it is ready, and its peak memory."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from litgpt_core.core.errors import EnvironmentProblem

START_S = 180.0
"""Seconds for a server to start."""


@dataclass(frozen=True, kw_only=True)
class ServerSpec:
    """One server of a benchmark."""

    label: str
    """Its name in tables; unique."""
    ours: bool = False
    """Whether ratios to the other servers are formed for it."""
    describes: str
    """One line: which program, with which settings."""
    command: Callable[[Path, int], list[str]]
    """Returns the command that serves on a port, given an empty folder; may write files there."""


@dataclass(frozen=True, kw_only=True)
class RunningServer:
    """A server that answers."""

    port: int
    pid: int

    def peak_mb(self) -> float:
        """Peak resident memory of its process so far (10^6 bytes); where the system does not tell it, the present."""
        with contextlib.suppress(OSError, StopIteration):
            lines = Path(f"/proc/{self.pid}/status").read_text(encoding="ascii", errors="replace").splitlines()
            return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) * 1024 / 1e6
        return float(psutil.Process(self.pid).memory_info().rss) / 1e6


@contextlib.contextmanager
def running(spec: ServerSpec, *, folder: Path, environment: Mapping[str, str]) -> Iterator[RunningServer]:
    """Start a server in `folder`, which is created, and end it with the block.

    Raises:
        EnvironmentProblem: It did not start; with the end of its output.
    """
    folder.mkdir(parents=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    command, log = spec.command(folder, port), folder / "server.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, cwd=folder, stdout=out, stderr=subprocess.STDOUT, env={**os.environ, **environment}
        )
    try:
        deadline = time.monotonic() + START_S
        while not _answers(port):
            if process.poll() is not None or time.monotonic() > deadline:
                output = log.read_text(encoding="utf-8", errors="replace").strip()[-2000:]
                raise EnvironmentProblem(f"{spec.label} did not start:\n{output}", needed="a server that answers")
            time.sleep(0.1)
        yield RunningServer(port=port, pid=process.pid)
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _answers(port: int) -> bool:
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
    except OSError:
        return False
    return True
