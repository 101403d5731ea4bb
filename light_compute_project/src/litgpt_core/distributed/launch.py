"""Several processes on this machine from one `python train.py`: started, supervised, none left behind.

Each gets torchrun's variables, so that one started here and one started by torchrun cannot be told apart. Standard
library only: the parent loads torch only to count GPUs.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import time
from collections.abc import Sequence

from litgpt_core.core.child_process import STOPPED, ChildProcess, StopSignals, shell_code
from litgpt_core.core.signals import KILL, SIGNALS
from litgpt_core.distributed.world import PARENT, let_signals_in

logger = logging.getLogger(__name__)

_SAVED_PATIENCE = 12
"""A process that was stopped has saved: the others may still be writing to a dashboard."""

GRACE_S = 10.0
"""Seconds between one process's failure, SIGTERM to the others, and SIGKILL."""


def launch(count: int, *, command: Sequence[str], grace_s: float = GRACE_S) -> int:
    """Run `command` in `count` processes and wait for all.

    Args:
        count: Processes, all on this machine.
        command: What each of them runs. Signals are blocked there until it calls `world.let_signals_in`.
        grace_s: Seconds that the others get when one has failed, before each stronger step.

    Returns:
        0 if all ended well, else the exit code of the first that did not (128 + the signal if one killed it). When one
        fails, the others get time to exit by themselves, then SIGTERM, then SIGKILL.
    """
    started: list[ChildProcess] = []
    with StopSignals() as signals:
        port = _free_port()
        try:
            if hasattr(signal, "pthread_sigmask"):  # blocked in the children until they call `let_signals_in`
                signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
            for rank in range(count):
                environment = _environment(rank, count=count, port=port)
                started.append(ChildProcess(command, name=f"rank {rank}", environment=environment))
            let_signals_in()
            return _wait(started, signals, grace_s=grace_s)
        finally:
            let_signals_in()
            for process in started:
                process.reap()


def _environment(rank: int, *, count: int, port: int) -> dict[str, str]:
    threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, (os.cpu_count() or 1) // count))
    return {
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


def _wait(started: Sequence[ChildProcess], signals: StopSignals, *, grace_s: float) -> int:
    failure, deadline, order, forwarded = 0, float("inf"), [signal.SIGTERM, KILL], 0
    while living := [process for process in started if process.returncode() is None]:
        for number in signals.noted[forwarded:]:
            forwarded += 1
            _send(living, number)
        codes = [process.returncode() or 0 for process in started]
        if not failure and any(codes):
            failure = min(code for code in codes if code)  # a process that was killed is why another lost it
            logger.log(*_explained(codes.index(failure), failure))
            patience = _SAVED_PATIENCE if failure in STOPPED else 1
            deadline = time.monotonic() + patience * grace_s
        if time.monotonic() > deadline and order:
            number = order.pop(0)
            logger.warning("%d processes go on after one has failed: %s", len(living), number.name)
            _send(living, number)
            deadline = time.monotonic() + grace_s
        time.sleep(0.02)
    failure = failure or min((code for process in started if (code := process.returncode())), default=0)
    return shell_code(failure)


def _explained(rank: int, code: int) -> tuple[int, str]:
    """Level and text of a line about the first process that failed; those that exit by themselves have said why."""
    if code == -signal.SIGABRT:
        return logging.ERROR, (
            f"rank {rank} was aborted (SIGABRT). NCCL does so when an operation of all processes took longer than "
            "trainer.collective_timeout: then another process hung, ended or was lost, and the lines above and "
            "hang-rank*.txt in the run folder say where each stood. run.resume=auto continues from the last checkpoint"
        )
    if code == -KILL:
        return logging.ERROR, f"rank {rank} was killed (SIGKILL) from outside: was the memory used up?"
    return logging.DEBUG, f"rank {rank} ended with code {code}"


def _send(processes: Sequence[ChildProcess], number: signal.Signals) -> None:
    for process in processes:
        process.send(number)
