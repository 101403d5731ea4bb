"""`train.py` as a child process: started, watched, told to stop, and never left behind. What sweeps and studies share.

A child has a session of its own, so that Ctrl-C reaches it once, from here. On Linux it gets SIGTERM when its parent
ends, however that ends; a hidden file names it to the next command, which waits until it has saved.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import psutil

from litgpt_core.core.console import ENDING
from litgpt_core.core.errors import ConfigError, Diverged
from litgpt_core.distributed.requeue import REQUEUE

logger = logging.getLogger(__name__)

POLL_S = 0.1
"""Between two looks at the children."""
GRACE_S = 600.0
"""For a child that was told to stop to finish its step and save, before it is killed."""
STOPPED = (130, 143)
"""Exit codes of a run that a signal ended."""

_CLAIM, _ENDING = ".running-", ".ending-"
_KILL = getattr(signal, "SIGKILL", signal.SIGTERM)


@dataclass(frozen=True, kw_only=True)
class Ending:
    """How a child ended."""

    exit_code: int
    """As shells count: 128 + the signal's number for one that a signal killed."""
    kind: str = ""
    """Name of the error's class; empty if there was none, or if the child could not tell."""
    message: str = ""
    """What the error says."""
    told: bool = False
    """Whether it had been told to stop."""

    @property
    def stopped(self) -> bool:
        """Whether somebody ended it from outside; also one that was told to, did not obey, and was killed."""
        return self.exit_code in STOPPED or (self.told and self.exit_code > 128)

    @property
    def diverged(self) -> bool:
        """Whether the numbers blew up, which is a result and not a mistake."""
        return self.kind == Diverged.__name__


class StopSignals:
    """While the block runs, signals that end a program are only noted; children are told by `ChildRun.obey`."""

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        """The first one."""
        self.count = 0
        self._before: dict[int, Any] = {}

    def take(self, exit_code: int) -> None:
        """Somebody stopped a child alone, which is meant for its parent, too."""
        self._note(signal.SIGINT if exit_code == 130 else signal.SIGTERM, None)

    @property
    def exit_code(self) -> int:
        """130 after Ctrl-C, else 143; 0 while there was none."""
        return 0 if self.received is None else 130 if self.received == signal.SIGINT else 143

    def __enter__(self) -> StopSignals:
        for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2"):
            if (number := getattr(signal, name, None)) is not None:
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.count += 1
        if self.received is None:
            self.received = signal.Signals(number)


class ChildRun:
    """One running `train.py`.

    Args:
        command: The whole command line.
        name: Of the run; names the hidden file.
        folder: Of the sweep or study; must exist.
        output: File for what the child says, appended to; None for this terminal.
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
        self.name = name
        self._claim, self._report = folder / f"{_CLAIM}{name}.json", folder / f"{_ENDING}{name}.json"
        self._report.unlink(missing_ok=True)
        self._passed_on = 0
        self._kill_at: float | None = None
        variables = {**os.environ, **(environment or {}), ENDING: str(self._report.resolve())}
        variables.pop(REQUEUE, None)  # a job is put back into the queue by its sweep, not by each of its runs
        with contextlib.ExitStack() as stack:
            sink = stack.enter_context(output.open("ab")) if output is not None else None
            self._process = subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT if sink is not None else None,
                env=variables,
                start_new_session=True,
                preexec_fn=_end_with_parent(),
            )
        write_claim(self._claim, self._process.pid)

    def obey(self, signals: StopSignals) -> None:
        """Pass on what has arrived since the last call: Ctrl-C each time, and the third one kills; everything else
        once, as SIGTERM.
        """
        if signals.received == signal.SIGINT:
            while self._passed_on < signals.count:
                self._passed_on += 1
                if self._passed_on > 2:
                    self._kill()
                else:
                    self.stop(signal.SIGINT)
        elif signals.received is not None and not self._passed_on:
            self._passed_on = 1
            self.stop()

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Ask the child to save and leave; `poll` kills it where that takes longer than `GRACE_S`."""
        if self._process.poll() is None:
            self._process.send_signal(number)
            self._kill_at = self._kill_at or time.monotonic() + GRACE_S

    def poll(self) -> Ending | None:
        """How the child ended, or None while it runs."""
        code = self._process.poll()
        if code is None:
            if self._kill_at is not None and time.monotonic() > self._kill_at:
                logger.warning("%s did not stop within %.0f s: killed", self.name, GRACE_S)
                self._kill()
            return None
        ending = _read_json(self._report)
        self._report.unlink(missing_ok=True)
        self._claim.unlink(missing_ok=True)
        return Ending(
            exit_code=code if code >= 0 else 128 - code,
            kind=ending.get("kind", ""),
            message=ending.get("message", ""),
            told=self._kill_at is not None,
        )

    def wait(self) -> Ending:
        """Until it has ended."""
        while (ending := self.poll()) is None:
            time.sleep(POLL_S)
        return ending

    def _kill(self) -> None:
        if sys.platform == "win32":
            self._process.kill()
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, _KILL)  # its loaders and ranks as well


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
        noted = _read_json(claim)
        with contextlib.suppress(psutil.Error, KeyError):
            process = psutil.Process(noted["pid"])
            if process.create_time() == noted["created"] and _runs(process):
                logger.info("process %d of the command before still runs: it is told to save and leave", process.pid)
                process.terminate()
                deadline = time.monotonic() + GRACE_S
                while _runs(process):
                    time.sleep(POLL_S)
                    if time.monotonic() > deadline:
                        process.kill()
        claim.unlink(missing_ok=True)
    for report in folder.glob(f"{_ENDING}*.json"):
        report.unlink(missing_ok=True)


def _runs(process: psutil.Process) -> bool:
    """Whether it still does something; one that only waits for its parent to notice has ended."""
    return bool(process.is_running()) and process.status() != psutil.STATUS_ZOMBIE


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _end_with_parent() -> Callable[[], None] | None:
    """What the child does between fork and exec: ask Linux for SIGTERM when this process ends."""
    if sys.platform != "linux":
        return None
    call, parent = ctypes.CDLL(None).prctl, os.getpid()

    def ask() -> None:
        call(1, int(signal.SIGTERM))  # PR_SET_PDEATHSIG
        if os.getppid() != parent:
            os._exit(143)

    return ask
