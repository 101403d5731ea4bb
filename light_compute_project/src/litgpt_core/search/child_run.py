"""`train.py` as a child process that reports how it ended, and that the next command finds if this one is killed.

A hidden file names each running child; the next command in the same folder waits until that child has saved.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from litgpt_core.core import child_process
from litgpt_core.core.child_process import STOPPED, ChildProcess, shell_code
from litgpt_core.core.console import ENDING
from litgpt_core.core.errors import ConfigError, Diverged
from litgpt_core.core.parsing import table_in
from litgpt_core.distributed.requeue import REQUEUE

logger = logging.getLogger(__name__)

POLL_S = 0.1
"""Between two looks at the children."""

_CLAIM, _REPORT = ".running-", ".ending-"


@dataclass(frozen=True, kw_only=True)
class Ending:
    """How a child ended."""

    exit_code: int
    """As shells count: 128 + the signal's number for one that a signal killed."""
    kind: str = ""
    """Name of the error's class; empty if there was none, or if the child could not report it."""
    message: str = ""
    """The error's message."""
    told: bool = False
    """Whether it had been told to stop."""

    @property
    def stopped(self) -> bool:
        """Whether it was ended from outside; also one that got a signal to stop, did not, and was killed."""
        return self.exit_code in STOPPED or (self.told and self.exit_code > 128)

    @property
    def diverged(self) -> bool:
        """Whether losses or weights became infinite, which is a result and not a mistake."""
        return self.kind == Diverged.__name__

    @property
    def problem(self) -> str:
        """First line of the message."""
        return self.message.partition("\n")[0]


class ChildRun(ChildProcess):
    """One running `train.py`.

    Args:
        command: The whole command line.
        name: Of the run; names the hidden file.
        folder: Of the sweep or study; must exist.
        output: File for the child's output, appended to; None for this terminal.
        environment: Variables besides those of this process.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        name: str,
        folder: Path,
        output: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._claim, self._report = folder / f"{_CLAIM}{name}.json", folder / f"{_REPORT}{name}.json"
        self._report.unlink(missing_ok=True)
        variables = {**(environment or {}), ENDING: str(self._report.resolve())}
        # a job is requeued by its sweep, not by each of its runs
        super().__init__(command, name=name, output=output, environment=variables, without=[REQUEUE])
        write_claim(self._claim, self.pid)

    def poll(self) -> Ending | None:
        """How the child ended, or None while it runs."""
        code = self.returncode()
        if code is None:
            return None
        ending = table_in(self._report)
        self._report.unlink(missing_ok=True)
        self._claim.unlink(missing_ok=True)
        return Ending(
            exit_code=shell_code(code),
            kind=ending.get("kind", ""),
            message=ending.get("message", ""),
            told=self.was_told,
        )

    def wait(self) -> Ending:
        """Until it has ended."""
        while (ending := self.poll()) is None:
            time.sleep(POLL_S)
        return ending


def refuse_ranks() -> None:
    """A sweep or study is one process that starts others; under torchrun there would be several of it.

    Raises:
        ConfigError: This is one of several processes.
    """
    if int(os.environ.get("WORLD_SIZE") or 1) > 1 or int(os.environ.get("SLURM_STEP_NUM_TASKS") or 1) > 1:
        raise ConfigError(
            "several processes were started for what is to be one",
            needed="one process, which starts every run by itself",
            fix="plain python, with trainer=ddp trainer.devices=2 for runs on two devices",
        )


def write_claim(path: Path, pid: int) -> None:
    """Note which process belongs to a run; its start time tells it from a later one with the same number."""
    with contextlib.suppress(psutil.NoSuchProcess):
        path.write_text(json.dumps({"pid": pid, "created": psutil.Process(pid).create_time()}), encoding="utf-8")


def end_left_over(folder: Path) -> None:
    """End the children of a sweep or study that was killed, if they still run, and wait until they have saved."""
    for claim in sorted(folder.glob(f"{_CLAIM}*.json")):
        noted = table_in(claim)
        with contextlib.suppress(psutil.Error, KeyError):
            process = psutil.Process(noted["pid"])
            if process.create_time() == noted["created"] and _runs(process):
                logger.info("process %d of the previous command still runs: waiting until it has saved", process.pid)
                process.terminate()
                deadline = time.monotonic() + child_process.GRACE_S
                while _runs(process):
                    time.sleep(POLL_S)
                    if time.monotonic() > deadline:
                        process.kill()
        claim.unlink(missing_ok=True)
    for report in folder.glob(f"{_REPORT}*.json"):
        report.unlink(missing_ok=True)


def _runs(process: psutil.Process) -> bool:
    """Whether it still does something; one that only waits for its parent to notice has ended."""
    return bool(process.is_running()) and process.status() != psutil.STATUS_ZOMBIE
