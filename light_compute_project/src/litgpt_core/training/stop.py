"""Stopping from outside: Ctrl-C, SIGTERM and SIGUSR1 end a run at a step boundary, with a checkpoint, and with the
right exit code.

Before the first step there is nothing to save, so a signal ends the run at once; where libraries are loaded
(`loading`), as soon as they are. While training it only sets a flag; `saving.py` looks at it between optimizer steps. A
second Ctrl-C does not wait; queues send several signals in a row, so others wait however often they come.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from litgpt_core.core.errors import Interrupted
from litgpt_core.distributed.world import let_signals_in

logger = logging.getLogger(__name__)

EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}
"""128 + the signal's number, as shells report it. A queue's warning (SIGUSR1, SIGUSR2) ends like SIGTERM."""
for _name in ("SIGUSR1", "SIGUSR2"):
    if hasattr(signal, _name):  # Windows has none
        EXIT_CODES[getattr(signal, _name)] = 143


class StopRequest:
    """The flag between the signal handler and the training loop."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self.training = False
        self.speaks = True
        """False on all processes of a run but the first, which tells what all do."""
        self._moment = "before the first step"
        self._waits = False
        self.told = False
        """Whether an exception for the signal has been raised."""

    @property
    def exit_code(self) -> int:
        """Exit code for the signal that arrived; 130 if none did."""
        return EXIT_CODES.get(self.signal, 130) if self.signal else 130

    @property
    def is_queues(self) -> bool:
        """Whether a queue may have sent the signal: anything but Ctrl-C."""
        return self.signal is not None and self.signal != signal.SIGINT

    def take(self, number: int) -> None:
        """Another process of the run got the signal: stop for it too; 0 is none."""
        self.signal = signal.Signals(number) if number else self.signal

    @contextmanager
    def loading(self) -> Iterator[None]:
        """Around imports and other code that is not ours: a signal ends the run afterwards, a second Ctrl-C at once.

        An exception out of a signal handler is not safe there: torch's import aborts the process, and OmegaConf raises
        a copy without the exit code (both seen in one of about a hundred starts that were stopped at a random moment).

        Raises:
            Interrupted: A signal came meanwhile.
        """
        self._waits = True
        try:
            yield
        finally:
            self._waits = False
        if self.signal is not None:
            raise self.ending()

    def ending(self) -> Interrupted:
        """What the signal that came outside of training raises."""
        assert self.signal is not None
        self.told = True
        ending = Interrupted(f"stopped by {self.signal.name} {self._moment}", exit_code=self.exit_code)
        ending.silent = not self.speaks
        return ending

    def end_at_once(self, moment: str) -> None:
        """Training is over: from here on a signal ends the process where it is; `moment` says when that was."""
        self.training, self._moment = False, moment
        self.install()
        if self.signal is not None:  # it came after the last step had asked
            raise self.ending()

    def install(self) -> None:
        """Route the signals here. Called again once the Trainer has put its own handlers in place."""
        for number in EXIT_CODES:
            signal.signal(number, self._handle)
        let_signals_in()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        before, self.signal = self.signal, signal.Signals(number)
        again = before is not None
        if self._waits and not before == self.signal == signal.SIGINT:
            return
        if not self.training:
            raise self.ending()
        if again and self.signal != signal.SIGINT:
            return
        if again:
            ending = Interrupted(
                "stopped by a second Ctrl-C without waiting for the step",
                needed="the last checkpoint holds everything up to its step",
                fix="the same command with run.resume=true",
                exit_code=self.exit_code,
            )
            ending.silent = not self.speaks
            raise ending
        hint = " (again to stop at once)" if self.signal == signal.SIGINT else ""
        level = logging.WARNING if self.speaks else logging.DEBUG
        logger.log(level, "%s received: finishing this step and saving%s", self.signal.name, hint)


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Install the handlers for the duration of a run and put the old ones back."""
    before = {number: signal.getsignal(number) for number in EXIT_CODES}
    request = StopRequest()
    request.install()
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
