"""The one supervisor of child processes: started in a session of their own, told to stop, killed when they do not.

A session of its own, so that Ctrl-C at the terminal reaches a child once, from here, and so that its own children are
killed with it. On Linux a child gets SIGTERM when this process ends, however it ends. Standard library only.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from litgpt_core.core.signals import KILL, SIGNALS, ending_with

logger = logging.getLogger(__name__)

GRACE_S = 600.0
"""Time for a child that was asked to stop to finish its step and save, before it is killed."""
STOPPED = (130, 143)
"""Exit codes of a program that a signal ended and that saved first."""


class StopSignals:
    """While the block runs, signals that would end this process are only noted, in their order."""

    def __init__(self) -> None:
        self.noted: list[signal.Signals] = []
        self._before: dict[int, Any] = {}

    @property
    def received(self) -> signal.Signals | None:
        """The first one."""
        return self.noted[0] if self.noted else None

    @property
    def count(self) -> int:
        """How many have arrived."""
        return len(self.noted)

    @property
    def exit_code(self) -> int:
        """130 after Ctrl-C, else 143; 0 while there was none."""
        return 0 if self.received is None else 130 if self.received == signal.SIGINT else 143

    def take(self, exit_code: int) -> None:
        """A child alone was stopped, which is meant for its parent, too."""
        self._note(signal.SIGINT if exit_code == 130 else signal.SIGTERM, None)

    def __enter__(self) -> StopSignals:
        self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.noted.append(signal.Signals(number))


class ChildProcess:
    """One running child.

    Args:
        command: The whole command line.
        name: For log lines.
        output: File to which standard output and error are appended; None for those of this process.
        environment: Variables besides those of this process.
        without: Variables of this process that the child does not get.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        name: str,
        output: Path | None = None,
        environment: Mapping[str, str] | None = None,
        without: Sequence[str] = (),
    ) -> None:
        self.name = name
        self._forwarded = 0
        self._kill_at: float | None = None
        variables = {key: text for key, text in os.environ.items() if key not in without} | dict(environment or {})
        with contextlib.ExitStack() as stack:
            sink = stack.enter_context(output.open("ab")) if output is not None else None
            self._process = subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT if sink is not None else None,
                env=variables,
                start_new_session=True,
                preexec_fn=ending_with(os.getpid()),
            )

    @property
    def pid(self) -> int:
        """Its process number, which is also that of its group."""
        return self._process.pid

    @property
    def was_told(self) -> bool:
        """Whether `stop` was called."""
        return self._kill_at is not None

    def forward(self, signals: StopSignals) -> None:
        """Pass on what has arrived since the last call: Ctrl-C each time, and the third one kills; everything else
        once, as SIGTERM.
        """
        if signals.received == signal.SIGINT:
            while self._forwarded < signals.count:
                self._forwarded += 1
                if self._forwarded > 2:
                    self.kill()
                else:
                    self.stop(signal.SIGINT)
        elif signals.received is not None and not self._forwarded:
            self._forwarded = 1
            self.stop()

    def send(self, number: int) -> None:
        """Send a signal to the child alone, if it still runs."""
        if self._process.poll() is None:
            self._process.send_signal(number)

    def stop(self, number: int = signal.SIGTERM, *, grace_s: float | None = None) -> None:
        """Tell the child to save and exit; `poll` kills it if that takes longer than `grace_s` (`GRACE_S`)."""
        if self._process.poll() is None:
            self._process.send_signal(number)
            grace = GRACE_S if grace_s is None else grace_s
            self._kill_at = self._kill_at or time.monotonic() + grace

    def kill(self) -> None:
        """Kill the child and every process that it started."""
        if sys.platform == "win32":
            self._process.kill()
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, KILL)

    def returncode(self) -> int | None:
        """None while it runs; else its exit code, negative for a child that a signal killed."""
        code = self._process.poll()
        if code is None and self._kill_at is not None and time.monotonic() > self._kill_at:
            logger.warning("%s did not stop in time: killed", self.name)
            self.kill()
        return code

    def reap(self) -> None:
        """Kill it if it still runs, and wait for its end."""
        if self._process.poll() is None:
            self.kill()
        self._process.wait()


def shell_code(returncode: int) -> int:
    """An exit code as shells count: 128 + the signal's number for a process that a signal killed."""
    return returncode if returncode >= 0 else 128 - returncode
