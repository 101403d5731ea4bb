"""Pictures drawn by a second process while the views are computed: with two cores, that time is hidden.

    parent    view 1   view 2   view 3   ...            end of input, wait
    child     starts   1.png    2.png    ...            last pictures

One line of JSON for each view: its name and values. `pictures.draw_all` is the same in one process, and what is done
where the child fails.
"""

from __future__ import annotations

import contextlib
import json
import queue
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from litgpt_core.core.parsing import parse_json

MOST_S, MOST_BYTES = 120.0, 64_000_000
"""That the child may draw on after the last view; of one view."""


class Drawing:
    """A child process that draws into a folder.

    Args:
        folder: Where `NAME.png` goes; must exist.
    """

    def __init__(self, folder: Path) -> None:
        self.lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self.process: subprocess.Popen[bytes] | None = None
        self.writer = threading.Thread(target=self._write, daemon=True)
        with contextlib.suppress(OSError):
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "litgpt_core.interpret.drawing", str(folder)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            self.writer.start()

    def draw(self, name: str, values: dict[str, Any]) -> None:
        """Draw one view, soon."""
        self.lines.put(json.dumps([name, values]).encode() + b"\n")

    def finish(self) -> bool:
        """Wait for the last picture; whether all of them were drawn."""
        if self.process is None:
            return False
        self.lines.put(b"")
        try:
            return self.process.wait(MOST_S) == 0
        except subprocess.TimeoutExpired:
            return False
        finally:
            self.end()

    def end(self) -> None:
        """End the child, if it still runs."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.lines.put(b"")
            self.writer.join()

    def _write(self) -> None:
        """The pipe holds less than one view, so the parent does not write to it itself."""
        assert self.process is not None and self.process.stdin is not None
        with contextlib.suppress(OSError), self.process.stdin as pipe:
            while line := self.lines.get():
                pipe.write(line)
                pipe.flush()


def main(folder: Path) -> None:
    """The child: draw what standard input says until it ends."""
    from litgpt_core.interpret.pictures import PICTURES, draw

    for line in sys.stdin:
        name, values = parse_json(line, max_bytes=MOST_BYTES)
        if name in PICTURES:
            draw(name, values, folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
