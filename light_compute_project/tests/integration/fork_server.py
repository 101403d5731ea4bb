"""Scripts in processes that are forked from one that has imported the large libraries already.

Most of the time of a small training or evaluation is the import of PyTorch and Lightning, 4 to 5 seconds of a core. One
server per test process imports them once and forks a process for every script, which then has a working directory,
environment, arguments and standard streams of its own, as if it had been started. Tested elsewhere is what only a real
start shows: the commands of the pages (test_readme.py), the wheel (test_wheel.py), everything that is sent a signal.

    client  --  {"arguments", "folder", "environment"}, two file descriptors  -->  server  --  fork  -->  script
            <--  process id, exit code

Started as a program, this file is the server; its argument is the file descriptor of a socket.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import random
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from pathlib import Path

IMPORTS = ("litgpt_core.training.runner", "litgpt_core.config.compose", "litgpt_core.generation.engine")
READ_AT_IMPORT = ("PYTHON", "OMP_", "MKL_", "KMP_", "TORCH", "CUDA", "HF_", "TRANSFORMERS", "LD_")
"""Beginnings of variables that libraries read once: a script for which one of them differs is started for real."""


class ForkServer:
    """The client. The server starts with the first script and ends when its socket is closed."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def can_run(self, command: list[str], environment: dict[str, str]) -> bool:
        """Whether it is a script of this interpreter and sees the variables that the server has imported with."""
        mine, theirs = _read_at_import(dict(os.environ)), _read_at_import(environment)
        script = command[1] if len(command) > 1 else ""
        return sys.platform == "linux" and command[0] == sys.executable and script.endswith(".py") and mine == theirs

    def run(
        self, command: list[str], *, folder: Path, environment: dict[str, str], timeout: float
    ) -> subprocess.CompletedProcess[str]:
        """As `subprocess.run` with captured text.

        Raises:
            subprocess.TimeoutExpired: After `timeout` seconds; the process is ended.
        """
        if self._socket is None:
            self._socket, self._process = _start()
        job = {"arguments": command[1:], "folder": str(folder), "environment": environment}
        with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
            body = json.dumps(job).encode()
            socket.send_fds(self._socket, [len(body).to_bytes(8, "little")], [output.fileno(), errors.fileno()])
            self._socket.sendall(body)
            self._socket.settimeout(300)  # the first answer may wait for the imports
            pid = _number(self._socket)
            self._socket.settimeout(timeout)
            try:
                code = _number(self._socket)
            except TimeoutError:
                os.kill(pid, signal.SIGKILL)
                self._socket.settimeout(30)
                _number(self._socket)
                raise subprocess.TimeoutExpired(command, timeout) from None
            texts = [_text(stream) for stream in (output, errors)]
        return subprocess.CompletedProcess(command, code, *texts)

    def close(self) -> None:
        if self._socket is not None and self._process is not None:
            self._socket.close()
            self._process.wait(timeout=60)


def _read_at_import(environment: dict[str, str]) -> dict[str, str]:
    own = {"PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE"}  # make no difference to what is imported
    return {key: value for key, value in environment.items() if key.startswith(READ_AT_IMPORT) and key not in own}


def _start() -> tuple[socket.socket, subprocess.Popen[bytes]]:
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen(
            [sys.executable, __file__, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
    return ours, process


def _number(connection: socket.socket) -> int:
    return int.from_bytes(_exactly(connection, 8), "little", signed=True)


def _exactly(connection: socket.socket, size: int) -> bytes:
    received = b""
    while len(received) < size:
        part = connection.recv(size - len(received))
        if not part:
            raise EOFError("the fork server has ended")
        received += part
    return received


def _text(stream: object) -> str:
    stream.seek(0)  # type: ignore[attr-defined]
    content: bytes = stream.read()  # type: ignore[attr-defined]
    return content.decode("utf-8", "replace").replace("\r\n", "\n")


# ---- the server


def _serve(connection: socket.socket) -> None:
    import importlib

    for name in IMPORTS:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # the pages of these objects stay shared
    while True:
        length, streams, _, _ = socket.recv_fds(connection, 8, 2)
        if not length:
            return
        job = json.loads(_exactly(connection, int.from_bytes(length, "little")))
        if (pid := os.fork()) == 0:
            connection.close()
            _run(job, streams)  # never returns
        for stream in streams:
            os.close(stream)
        connection.sendall(pid.to_bytes(8, "little"))
        _, status = os.waitpid(pid, 0)
        connection.sendall(os.waitstatus_to_exitcode(status).to_bytes(8, "little", signed=True))


def _run(job: dict[str, object], streams: list[int]) -> None:
    """The script in this process, which then ends as an interpreter does."""
    code = 1
    try:
        for stream, number in zip(streams, (1, 2), strict=True):
            os.dup2(stream, number)
            os.close(stream)
        os.chdir(str(job["folder"]))
        os.environ.clear()
        os.environ.update(job["environment"])  # type: ignore[arg-type,call-overload]
        arguments = [str(each) for each in job["arguments"]]  # type: ignore[attr-defined]
        sys.argv, sys.path[0] = arguments, str(Path(arguments[0]).parent)
        random.seed()
        runpy.run_path(arguments[0], run_name="__main__")
        code = 0
    except SystemExit as leaving:
        code = _exit_code(leaving.code)
    except BaseException:
        traceback.print_exc()
    finally:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _exit_code(given: object) -> int:
    if given is None or isinstance(given, int):
        return given or 0
    print(given, file=sys.stderr)
    return 1


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
    os._exit(0)  # libraries complain about objects that are left at the end
