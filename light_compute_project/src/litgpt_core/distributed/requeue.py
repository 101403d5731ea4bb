"""A job that SLURM is about to end asks to be started again. Nothing here saves or stops: that has happened before.

SLURM kills the job's processes as soon as it has been asked, so the call is the last thing a run does. It may be made
on every rank at once and needs no connection between them, so it serves a run that was stopped during its start, too.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator

logger = logging.getLogger(__name__)

REQUEUE = "LIGHT_COMPUTE_REQUEUE"
"""Environment variable: `1` where a job wishes to be started again, as the script of `scripts/slurm.py` sets it."""

_ALIVE = ("RUNNING", "SIGNALING", "STOPPED", "SUSPENDED", "RESIZING")
"""States of a job that goes on unless somebody does something; SIGNALING for as long as a signal is on its way."""
_TIMEOUT_S = 60.0
_PATIENCE_S = 10.0
"""How long other ranks stay while rank 0 asks: srun ends all when the first of them leaves."""


def request_requeue() -> bool:
    """Ask SLURM to put this job back into the queue; whether it agreed.

    Nothing happens outside a job or without `LIGHT_COMPUTE_REQUEUE=1`. Rank 0 asks, and only while SLURM calls the job
    alive: one that a person cancelled gets SIGTERM, too, and asking would bring it back to life. Other ranks wait
    until SLURM ends them, or `_PATIENCE_S`.
    """
    if os.environ.get(REQUEUE) != "1" or not (job := job_id()):
        return False
    with _signals_noted() as ending:
        if (os.environ.get("RANK") or os.environ.get("SLURM_PROCID") or "0") == "0":
            return _ask(job)
        until = time.monotonic() + _PATIENCE_S
        while time.monotonic() < until and not ending.wait(0.1):
            pass  # a signal that another thread was given is heard when this one wakes
        return False


def _ask(job: str) -> bool:
    if (state := _state(job)) not in (*_ALIVE, None):
        logger.info("SLURM job %s is %s already: it is not put back into the queue", job, state)
        return False
    done = _scontrol("requeue", job)
    if done is None or done.returncode:
        why = (done.stderr or done.stdout).strip() if done is not None else "scontrol does not answer"
        logger.warning(
            "SLURM did not put job %s back into the queue: %s; submit it again to continue the run", job, why
        )
        return False
    logger.warning("SLURM job %s is put back into the queue and continues there", job)
    return True


@contextlib.contextmanager
def _signals_noted() -> Iterator[threading.Event]:
    """While the block runs, a queue's signals interrupt nothing; SIGTERM, with which SLURM ends a job, sets the
    event.
    """
    ending = threading.Event()
    numbers = [signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2]
    before = {number: signal.getsignal(number) for number in numbers}
    for number in numbers:
        signal.signal(number, lambda given, frame: ending.set() if given == signal.SIGTERM else None)
    try:
        yield ending
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def job_id() -> str | None:
    """The SLURM job this process runs in, an element of an array as `ARRAY_INDEX`; None outside a job."""
    array, index = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{index}" if array and index else os.environ.get("SLURM_JOB_ID") or None


def _state(job: str) -> str | None:
    """`JobState` of a job: one of `_ALIVE`, also while a preempted one has its time of grace; COMPLETING once it is
    cancelled or out of time; None if SLURM does not say.
    """
    done = _scontrol("show", "job", job, "--oneliner")
    found = re.search(r"\bJobState=(\w+)", done.stdout) if done is not None else None
    return found[1] if found else None


def _scontrol(*arguments: str) -> subprocess.CompletedProcess[str] | None:
    try:
        return subprocess.run(["scontrol", *arguments], capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
