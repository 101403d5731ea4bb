"""What every script does around its one call: log lines on stderr and in a file, user errors as plain messages, exit
codes.

Standard library only, so that `--help` answers at once.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import io
import json
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import NoReturn

from litgpt_core.core.errors import LightComputeError
from litgpt_core.core.private_files import open_private
from litgpt_core.core.redaction import redact
from litgpt_core.core.text import visible


def configure_logging(*, level: int = logging.INFO) -> None:
    """Send this project's log lines to stderr as bare messages, warnings marked; only rank 0 speaks below warnings."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Plain())
    root = logging.getLogger("litgpt_core")
    root.handlers[:] = [handler]
    root.propagate = False
    rank = os.environ.get("RANK") or os.environ.get("SLURM_PROCID") or os.environ.get("LOCAL_RANK") or "0"
    root.setLevel(level if rank == "0" else max(level, logging.WARNING))


MAX_LOG_BYTES, KEPT_LOGS = 10_000_000, 5

ENDING = "LIGHT_COMPUTE_ENDING"
"""Environment variable: a file into which a script that fails writes its error's class and message, for whoever started
it. Of several processes of one run the first one speaks.
"""


class _PrivateLog(RotatingFileHandler):
    """Readable by this user alone, also after it was put aside and begun anew."""

    def _open(self) -> io.TextIOWrapper:
        open_private(Path(self.baseFilename), tighten=True).close()
        return super()._open()


@contextlib.contextmanager
def log_to_file(path: Path, *, loggers: tuple[str, ...] = ("litgpt_core",), private: bool = False) -> Iterator[None]:
    """While the block runs, log lines also go to a file, one JSON object each: time, level, logger, message, error.

    A full file is put aside as `NAME.1`, and so on. One that cannot be written is a warning: work goes on without it.

    Args:
        path: Its folder is made where it is missing.
        loggers: Names of those whose lines are kept; levels stay what they are.
        private: Only this user may read the file, which must not be a link.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        kind = _PrivateLog if private else RotatingFileHandler
        handler = kind(path, maxBytes=MAX_LOG_BYTES, backupCount=KEPT_LOGS, encoding="utf-8")
    except OSError as problem:
        logging.getLogger(__name__).warning("there is no log file %s: %s", path, problem.strerror or problem)
        yield
        return
    handler.setFormatter(_Json())
    chosen = [logging.getLogger(name) for name in loggers]
    for each in chosen:
        each.addHandler(handler)
    try:
        yield
    finally:
        for each in chosen:
            each.removeHandler(handler)
        handler.close()


def _leave(code: int) -> NoReturn:
    """End the process; with torch loaded without taking the interpreter apart, once threads and exit handlers are done.

    Taking it apart would cost 0.5 s to 1.5 s and 60 to 140 MB, and no file of this project needs it. And of a process
    that was connected over gloo, now and then a thread is still there when static objects go: it aborts with exit code
    134 after all its work is done (twice in about twenty starts of 4 processes).
    """
    if "torch" not in sys.modules or _is_watched():
        sys.exit(code)
    with contextlib.suppress(SystemExit):
        sys.exit(code)  # W&B has put itself in its place, to tell its server how the run ended
    with contextlib.suppress(KeyboardInterrupt):
        threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def _is_watched() -> bool:
    """Whether a debugger, a profiler or a prompt waits for the script to return to it."""
    monitoring = getattr(sys, "monitoring", None)
    tools = [monitoring.get_tool(number) for number in range(6)] if monitoring is not None else []
    return bool(sys.flags.interactive or sys.gettrace() or sys.getprofile() or any(tools))


def for_stdout(text: str) -> str:
    """Generated text as it is; on a terminal, which control characters would control, with visible symbols instead."""
    return visible(text) if sys.stdout.isatty() else text


def run_script(main: Callable[[], int | None]) -> None:
    """Call `main` and leave the process with its exit code; user errors are printed without a traceback.

    Exit codes: 0 done; the error's own `exit_code` (2 for mistakes, 130 Ctrl-C, 143 SIGTERM); 1 for a bug, with its
    traceback.
    """
    configure_logging()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without UTF-8 must not end a finished run
    try:
        code = main() or 0
        sys.stdout.flush()
    except LightComputeError as error:
        if not error.silent:
            sys.stderr.write(visible(f"{type(error).__name__}: {error}\n"))
            _tell_starter(error)
        code = error.exit_code
    except KeyboardInterrupt:
        sys.stderr.write("stopped by Ctrl-C\n")
        code = 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 141
    except OSError as error:
        if error.errno not in _DISK_PROBLEMS:
            raise
        sys.stderr.write(f"the disk refused: {error}\n  try:    free room or rights, then the same command again\n")
        _tell_starter(error)
        code = LightComputeError.exit_code
    _leave(code)


_DISK_PROBLEMS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)


def _tell_starter(error: Exception) -> None:
    path = os.environ.get(ENDING)
    if not path:
        return
    with contextlib.suppress(OSError), Path(path).open("x", encoding="utf-8") as file:
        json.dump({"kind": type(error).__name__, "message": str(error)}, file)


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        row = {
            "time": datetime.fromtimestamp(record.created).astimezone().isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": redact(record.getMessage())[0],
        }
        if record.exc_info:
            row["error"] = redact(self.formatException(record.exc_info))[0]
        return json.dumps(row, ensure_ascii=False)


class _Plain(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        text = visible(super().format(record))  # names of files may hold anything
        return text if record.levelno < logging.WARNING else f"{record.levelname.lower()}: {text}"
