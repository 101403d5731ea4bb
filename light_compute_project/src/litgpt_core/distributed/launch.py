"""Several processes on this machine from one `python train.py`: start them, pass signals on, leave nobody behind.

Each gets torchrun's variables, so that one started here and one started by torchrun cannot be told apart. Standard
library only: the parent loads torch only to count GPUs.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from types import FrameType

from litgpt_core.distributed.world import PARENT, SIGNALS, let_signals_in

logger = logging.getLogger(__name__)

_SAVED, _SAVED_PATIENCE = (130, 143), 12
"""Who leaves with one of these was asked to and has saved: the others may be writing to a dashboard still."""

GRACE_S = 10.0
"""Seconds between one process's failure, SIGTERM to the others, and SIGKILL."""


def launch(count: int, *, command: Sequence[str], grace_s: float = GRACE_S) -> int:
    """Run `command` in `count` processes and wait for all.

    Args:
        count: Processes, all on this machine.
        command: What each of them runs. Signals are held back there until it calls `world.let_signals_in`.
        grace_s: Seconds that the others get when one has failed, before each stronger step.

    Returns:
        0 if all ended well, else the exit code of the first that did not (128 + the signal if one killed it). When one
        fails, the others get time to leave by themselves, then SIGTERM, then SIGKILL.
    """
    started: list[subprocess.Popen[bytes]] = []
    with _signals_kept() as kept:
        port = _free_port()
        try:
            if hasattr(signal, "pthread_sigmask"):  # held back in the children until they call `let_signals_in`
                signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
            for rank in range(count):
                # a session of its own: Ctrl-C at the terminal comes from here once, and not from the terminal as well
                process = subprocess.Popen(
                    command, env=_environment(rank, count=count, port=port), start_new_session=True
                )
                started.append(process)
            let_signals_in()
            return _wait(started, kept, grace_s=grace_s)
        finally:
            let_signals_in()
            for process in started:
                if process.poll() is None:
                    process.kill()
                process.wait()


def _environment(rank: int, *, count: int, port: int) -> dict[str, str]:
    threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, (os.cpu_count() or 1) // count))
    return os.environ | {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "GROUP_RANK": "0",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": threads,
        PARENT: str(os.getpid()),
    }


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def _signals_kept() -> Iterator[list[int]]:
    """While the block runs, signals go into the list, in their order, for `_wait` to pass on."""
    kept: list[int] = []

    def keep(number: int, frame: FrameType | None) -> None:
        kept.append(number)

    before = {number: signal.signal(number, keep) for number in SIGNALS}
    try:
        yield kept
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _wait(started: Sequence[subprocess.Popen[bytes]], kept: list[int], *, grace_s: float) -> int:
    failure, deadline, order = 0, float("inf"), [signal.SIGTERM, getattr(signal, "SIGKILL", signal.SIGTERM)]
    while living := [process for process in started if process.poll() is None]:
        while kept:
            _send(living, kept.pop(0))
        codes = [process.returncode or 0 for process in started]
        if not failure and any(codes):
            failure = min(code for code in codes if code)  # a process that was killed is why another lost it
            patience = _SAVED_PATIENCE if failure in _SAVED else 1
            deadline = time.monotonic() + patience * grace_s
        if time.monotonic() > deadline and order:
            number = order.pop(0)
            logger.warning("%d processes go on after one has failed: %s", len(living), number.name)
            _send(living, number)
            deadline = time.monotonic() + grace_s
        time.sleep(0.02)
    failure = failure or min((process.returncode for process in started if process.returncode), default=0)
    return 128 - failure if failure < 0 else failure


def _send(processes: Sequence[subprocess.Popen[bytes]], number: int) -> None:
    for process in processes:
        if process.poll() is None:
            process.send_signal(number)
