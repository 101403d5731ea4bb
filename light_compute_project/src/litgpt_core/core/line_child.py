"""A child process for what others wrote: it answers one line of JSON with another, within a time limit, or is ended.

The script limits its own memory, imports nothing of this project, and ends by an alarm where its parent is gone.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_KEPT_VARIABLES = ("PATH", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "SYSTEMROOT", "LANG", "TZ")
"""Of the environment: no keys, no settings of ours."""


class LineChild:
    """One running script. Used by one thread at a time.

    Args:
        script: Reads a line and writes a line, again and again.

    Raises:
        OSError: It cannot be started.
    """

    def __init__(self, script: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-P", str(script)],  # -P: nothing is imported from the script's or the current folder
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ},
        )

    @property
    def is_running(self) -> bool:
        """Whether it can be asked."""
        return self.process.poll() is None

    def ask(self, request: Mapping[str, Any], *, seconds: float) -> Any:
        """Its answer; None if it took longer than `seconds`, which ends it, or has ended by itself."""
        assert self.process.stdin is not None and self.process.stdout is not None
        timer = threading.Timer(seconds, self.process.kill)
        timer.daemon = True
        timer.start()
        try:
            self.process.stdin.write(json.dumps({**request, "seconds": seconds}).encode() + b"\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
            return json.loads(line) if line.endswith(b"\n") else None
        except (OSError, ValueError):  # ended while it was written to
            return None
        finally:
            timer.cancel()

    def end(self) -> None:
        """Kill it and close its pipes."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):
                if pipe is not None:
                    pipe.close()
