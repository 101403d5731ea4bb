"""Signals that end a program, and Linux's help where a parent ends without sending one. Standard library only."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable

SIGNALS = tuple(
    number
    for name in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2", "SIGHUP")
    if (number := getattr(signal, name, None)) is not None
)
"""Those with which a person, a queue or a terminal ends a program; a parent forwards them."""
KILL = getattr(signal, "SIGKILL", signal.SIGTERM)


def ending_with(parent: int) -> Callable[[], None] | None:
    """What a process calls to get SIGTERM when `parent` ends, however it ends; None where the system has no such thing.

    It may be called between fork and exec, and ends the process at once if the parent has ended already.
    """
    if sys.platform != "linux":
        return None
    call = ctypes.CDLL(None).prctl

    def ask() -> None:
        call(1, int(signal.SIGTERM))  # PR_SET_PDEATHSIG
        if os.getppid() != parent:
            os._exit(143)

    return ask
