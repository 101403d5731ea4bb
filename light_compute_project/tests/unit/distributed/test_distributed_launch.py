"""The launcher: torchrun's variables for every process, one exit code, nobody left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest

from litgpt_core.distributed.launch import launch

pytestmark = [pytest.mark.skipif(sys.platform == "win32", reason="signals"), pytest.mark.serial]


def python(code: str) -> list[str]:
    return [sys.executable, "-c", textwrap.dedent(code)]


def test_every_process_knows_who_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    command = python(
        f"""
        import json, os, pathlib
        keys = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_PORT", "OMP_NUM_THREADS")
        pathlib.Path({str(tmp_path)!r}, os.environ["RANK"]).write_text(json.dumps([os.environ[k] for k in keys]))
        """
    )
    assert launch(3, command=command) == 0
    seen = [json.loads((tmp_path / str(rank)).read_text()) for rank in range(3)]
    assert [s[:4] for s in seen] == [[str(r), str(r), "3", "3"] for r in range(3)]
    assert len({s[4] for s in seen}) == 1 and seen[0][5] == str(max(1, (os.cpu_count() or 1) // 3))


@pytest.mark.parametrize(
    ("ending", "code"), [("sys.exit(2)", 2), ("os.kill(os.getpid(), 9)", 137), ("os.kill(os.getpid(), 15)", 143)]
)
def test_one_that_fails_ends_all_with_its_code(tmp_path: Path, ending: str, code: int) -> None:
    command = python(
        "from litgpt_core.distributed.world import let_signals_in; let_signals_in()\n"
        f"import os, sys, time\nif os.environ['RANK'] == '1': {ending}\n"
        f"time.sleep(100)\nopen({str(tmp_path / '0')!r}, 'w')"
    )
    assert launch(2, command=command, grace_s=0.5) == code
    assert not (tmp_path / "0").exists(), "the other was ended, and did not come to its own end"


def test_a_process_that_is_aborted_or_killed_is_explained(caplog: pytest.LogCaptureFixture) -> None:
    """NCCL ends a process by SIGABRT, without a word that a user understands."""
    for ending, said in (("os.abort()", "rank 1 was aborted (SIGABRT). NCCL"), ("os.kill(os.getpid(), 9)", "memory")):
        command = python(f"import os, time\nif os.environ['RANK'] == '1': {ending}\ntime.sleep(100)")
        assert launch(2, command=command, grace_s=0.2) in (134, 137)
        assert said in caplog.text and "run.resume=auto" in caplog.text


LAUNCHER = """
    import sys
    from litgpt_core.distributed.launch import launch
    sys.exit(launch(2, command=[sys.executable, "-c", sys.argv[1], "marker-of-this-test"]))
"""
CHILD = """
    import os, pathlib, signal, sys, time
    from litgpt_core.distributed.world import die_with_launcher, let_signals_in
    die_with_launcher()
    seen = []
    def handle(number, frame):
        pathlib.Path(os.environ["OUT"], os.environ["RANK"] + "-" + signal.Signals(number).name).touch()
        sys.exit(128 + number)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, handle)
    pathlib.Path(os.environ["OUT"], "ready-" + os.environ["RANK"]).touch()
    time.sleep(0.5)  # a signal may be waiting by now
    let_signals_in()
    time.sleep(100)
"""


def children() -> list[psutil.Process]:
    return [
        p
        for p in psutil.process_iter(["cmdline", "status"])
        if "marker-of-this-test" in (p.info["cmdline"] or []) and p.info["status"] != psutil.STATUS_ZOMBIE
    ]


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGKILL], ids=lambda n: n.name
)
def test_a_signal_reaches_everybody_and_nobody_stays(tmp_path: Path, number: signal.Signals) -> None:
    if number == signal.SIGKILL and sys.platform != "linux":
        pytest.skip("only Linux tells a process that its parent died")
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(LAUNCHER), textwrap.dedent(CHILD)],
        env=os.environ | {"OUT": str(tmp_path)},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    deadline = time.monotonic() + 60
    while len(list(tmp_path.glob("ready-*"))) < 2:
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    process.send_signal(number)
    code = process.wait(timeout=60)
    assert code == (-9 if number == signal.SIGKILL else 128 + number)
    arrived = signal.SIGTERM if number == signal.SIGKILL else number
    while (left := children()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not left
    assert {p.name for p in tmp_path.glob("?-*")} == {f"{rank}-{arrived.name}" for rank in range(2)}
