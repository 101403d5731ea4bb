"""How a script ends: the right exit code, a message instead of a traceback, and bugs still loud."""

from __future__ import annotations

import errno
import json
import logging
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest

from litgpt_core.core import console
from litgpt_core.core.console import configure_logging, log_to_file, run_script
from litgpt_core.core.errors import ConfigError, Interrupted, LightComputeError


def ends_with(main: Callable[[], int | None]) -> int:
    with pytest.raises(SystemExit) as caught:
        run_script(main)
    assert isinstance(caught.value.code, int)
    return caught.value.code


def raising(error: BaseException) -> Callable[[], int]:
    def main() -> int:
        raise error

    return main


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (ConfigError("x=1", needed="y", fix="x=2"), 2, "ConfigError: x=1\n  needed: y\n  try:    x=2\n"),
        (Interrupted("stopped", exit_code=143), 143, "Interrupted: stopped\n"),
        (KeyboardInterrupt(), 130, "stopped by Ctrl-C\n"),
        (OSError(errno.ENOSPC, "No space left on device"), 2, "No space left on device"),
        (PermissionError(errno.EACCES, "Permission denied"), 2, "Permission denied"),
    ],
    ids=["mistake", "signal", "ctrl-c", "disk full", "no rights"],
)
def test_what_users_meet(error: BaseException, code: int, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert ends_with(raising(error)) == code
    assert said in capsys.readouterr().err


def test_bugs_keep_their_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        run_script(raising(ZeroDivisionError()))
    with pytest.raises(OSError, match="Input/output"):
        run_script(raising(OSError(errno.EIO, "Input/output error")))


def test_the_exit_code_of_main_is_the_process_s() -> None:
    assert ends_with(lambda: 1) == 1 and ends_with(lambda: None) == 0


def test_only_rank_zero_informs_and_everyone_warns(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for rank, expected in (("0", "plain\nwarning: odd\n"), ("3", "warning: odd\n")):
        monkeypatch.setenv("RANK", rank)
        configure_logging()
        log = logging.getLogger("litgpt_core.test")
        log.info("plain")
        log.warning("odd")
        assert capsys.readouterr().err == expected


def test_errors_survive_pickling() -> None:
    import pickle

    error = pickle.loads(pickle.dumps(LightComputeError("a", needed="b", fix="c")))
    assert (error.given, error.needed, error.fix) == ("a", "b", "c")


def test_a_log_file_holds_json_lines_and_errors(tmp_path: Path) -> None:
    log, path = logging.getLogger("litgpt_core.test"), tmp_path / "deep" / "log.jsonl"
    configure_logging()
    with log_to_file(path):
        log.info("so many: %d", 3)
        try:
            raise ValueError("why")
        except ValueError:
            log.exception("it broke")
    log.info("later")
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert [(row["level"], row["logger"], row["message"]) for row in rows] == [
        ("info", "litgpt_core.test", "so many: 3"),
        ("error", "litgpt_core.test", "it broke"),
    ]
    assert datetime.fromisoformat(rows[0]["time"]).tzinfo is not None
    assert "ValueError: why" in rows[1]["error"] and "error" not in rows[0]


def test_a_full_log_is_put_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("litgpt_core.core.console.MAX_LOG_BYTES", 500)
    configure_logging()
    with log_to_file(tmp_path / "log.jsonl"):
        for i in range(12):
            logging.getLogger("litgpt_core.test").info("line %d", i)
    assert (tmp_path / "log.jsonl.1").is_file() and (tmp_path / "log.jsonl").stat().st_size <= 500


def test_a_log_that_cannot_be_written_is_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    configure_logging()
    with log_to_file(tmp_path / "file" / "log.jsonl"):
        pass
    assert "there is no log file" in capsys.readouterr().err


LEAVING = """
import atexit, sys, threading, time, tempfile
import torch
from litgpt_core.core.console import run_script

class Last:
    def __del__(self):
        print("taken apart")

last = Last()
folder = tempfile.TemporaryDirectory()
print(folder.name)

def main():
    atexit.register(print, "exit handler")
    threading.Thread(target=lambda: (time.sleep(0.2), print("thread"))).start()
    sys.stdout.write("no newline, ")
    return 3

run_script(main)
"""


def test_the_exit_code_reaches_who_has_replaced_sys_exit() -> None:
    """As W&B does, which tells its server in an exit handler how the run ended."""
    code = (
        "import atexit, sys; from litgpt_core.core.console import run_script; import torch\n"
        "seen, before = [], sys.exit\n"
        "def hook(code=0): seen.append(code); before(code)\n"
        "sys.exit = hook; atexit.register(lambda: print(seen)); run_script(lambda: 3)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (3, "[3]"), done.stderr


def test_a_profiler_gets_its_script_back(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("import torch; from litgpt_core.core.console import run_script; run_script(lambda: 0)")
    out = tmp_path / "profile"
    subprocess.run([sys.executable, "-m", "cProfile", "-o", str(out), str(script)], check=True)
    assert out.stat().st_size > 0


def test_a_process_ends_after_threads_and_exit_handlers_but_is_not_taken_apart() -> None:
    done = subprocess.run([sys.executable, "-c", LEAVING], capture_output=True, text=True, check=False)
    folder, *said = done.stdout.splitlines()
    assert (done.returncode, said, done.stderr) == (3, ["no newline, thread", "exit handler"], "")
    assert not Path(folder).exists()


@pytest.mark.skipif(sys.platform == "win32", reason="rights as POSIX has them")
def test_a_private_log_stays_private_when_it_is_begun_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "MAX_LOG_BYTES", 300)
    path = tmp_path / "serve.log"
    path.write_text("old\n")
    path.chmod(0o644)
    with log_to_file(path, private=True):
        for number in range(8):
            logging.getLogger("litgpt_core.test").warning("line %d", number)
    files = sorted(tmp_path.iterdir())
    assert len(files) > 1 and {file.stat().st_mode & 0o777 for file in files} == {0o600}


@pytest.mark.skipif(sys.platform == "win32", reason="links as POSIX has them")
def test_a_private_log_is_not_written_through_a_link(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text("mine")
    (tmp_path / "serve.log").symlink_to(other)
    with log_to_file(tmp_path / "serve.log", private=True):
        logging.getLogger("litgpt_core.test").warning("a line")
    assert other.read_text() == "mine"
