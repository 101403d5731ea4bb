"""Machines of this computer: scripts, self-destruct, mirror, preemption and relaunch, with a training in a few lines.

The real training on such a machine, killed and continued bit for bit, is tests/integration/test_rental.py.
"""

from __future__ import annotations

import contextlib
import io
import os
import signal
import subprocess
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from litgpt_core.deploy.rental import mirror as mirror_module
from litgpt_core.deploy.rental.ledger import Ledger
from litgpt_core.deploy.rental.local_machine import LocalMachines
from litgpt_core.deploy.rental.mirror import FarState, Mirror, unpack
from litgpt_core.deploy.rental.node_script import NodeWork, arming, node_script
from litgpt_core.deploy.rental.progress import progress_line, progress_of
from litgpt_core.deploy.rental.provider import Launch
from litgpt_core.deploy.rental.remote import LocalShell, RemoteProblem
from litgpt_core.deploy.rental.request import Place, RentalRequest
from litgpt_core.deploy.rental.session import RentalSession

TRAIN = """\
mkdir -p "$LCP_HERE/runs/r/checkpoints"
step=$(ls "$LCP_HERE/runs/r/checkpoints" | tail -n 1 | sed 's/step-0*//')
step=${step:-0}
echo "limit $1" >> "$LCP_HERE/runs/r/limits"
while [ "$step" -lt 6 ]; do
    step=$((step + 1))
    row="{\\"step\\": $step, \\"tokens\\": $((step * 100)), \\"train_loss\\": 2.5, \\"tokens_per_s\\": 50}"
    echo "$row" >> "$LCP_HERE/runs/r/metrics.jsonl"
    mkdir "$LCP_HERE/runs/r/checkpoints/step-0000000$step"
    echo "$step" > "$LCP_HERE/runs/r/checkpoints/step-0000000$step/weights"
    echo '{}' > "$LCP_HERE/runs/r/checkpoints/step-0000000$step/checksums.json"
    if [ -f "$LCP_HERE/hold$step" ]; then sleep 100 & wait; fi
done
mkdir "$LCP_HERE/runs/r/final"; echo '{}' > "$LCP_HERE/runs/r/final/checksums.json"
"""


class ShSession(RentalSession):
    """A session whose parcel holds a shell script instead of the project."""

    setup: tuple[str, ...] = ("echo installed",)
    hold: int = 0
    linger_s: float = 60.0
    deadline_s: float = 60.0
    stop_s: float = 50.0

    def _prepared(self, place: Place, *, attempt: int, ceiling: float, now: float, left_s: float) -> Launch:
        folder = self.home / f"parcel{attempt}"
        (folder / "code").mkdir(parents=True)
        (folder / "code" / "train.sh").write_text(TRAIN)
        if self.hold:
            (folder / f"hold{self.hold}").touch()
        here = Path(self.request.run_dir) / "r"
        if (here / "checkpoints").is_dir():
            newest = max(path for path in (here / "checkpoints").iterdir() if path.name.startswith("step-"))
            (folder / "runs" / "r" / "checkpoints" / newest.name).mkdir(parents=True)
        arming_lines = arming(deadline=now + self.deadline_s, now=now, local=True)
        work = NodeWork(
            setup=self.setup,
            command=["bash", "train.sh"],
            stop_at=now + self.stop_s,
            now=now,
            linger_s=self.linger_s,
            run_folder="runs/r",
        )
        (folder / "node.sh").write_text(node_script(work, arming_lines=arming_lines))
        return Launch(
            request=self.request,
            name=self.request.machine_name(attempt),
            place=place,
            ceiling=ceiling,
            parcel=folder,
            arming=arming_lines,
            deadline=now + self.deadline_s,
            secrets={},
        )


@pytest.fixture
def machines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalMachines]:
    monkeypatch.setenv("LIGHT_COMPUTE_RENTALS", str(tmp_path / "rentals"))
    monkeypatch.setattr(mirror_module, "verify", lambda path: None)  # checkpoints of a shell script have no weights
    monkeypatch.setattr(mirror_module, "link", lambda path, name: None)
    made = LocalMachines(hourly=1.0)
    yield made
    for machine in made.machines("lcp-"):
        made.end(machine)


def session(tmp_path: Path, machines: LocalMachines, **changes: Any) -> ShSession:
    request = RentalRequest(
        name="r",
        rental_id="0a0a0a",
        engine="local",
        places=(Place(provider="local", gpu="", count=1, accelerator="", hourly=1.0),),
        overrides=(),
        run_dir=str(tmp_path / "runs"),
        parcel=str(tmp_path / "parcel"),
        budget=20.0,
        max_hourly_cost=5.0,
        poll_s=0.05,
        pull_every_s=0.01,
    )
    ledger = Ledger()
    ledger.opened(request, time=time.time())
    made = ShSession(request, provider=machines, ledger=ledger)
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def until(condition: Any, *, what: str) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.02)


@pytest.mark.serial
def test_a_run_is_followed_brought_home_and_its_machine_ended(tmp_path: Path, machines: LocalMachines) -> None:
    mine = session(tmp_path, machines)
    assert mine.run() == "finished" and mine.state.is_over and machines.machines("lcp-") == []
    run = tmp_path / "runs" / "r"
    assert (run / "final").is_dir() and (run / "checkpoints" / "step-00000006" / "weights").read_text() == "6\n"
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 6
    assert (mine.home / "logs" / "setup.log").read_text() == "installed\n"
    limit = (run / "limits").read_text()
    assert limit.startswith("limit trainer.max_session_time=") and 40 <= int(limit.strip().split("=")[1][:-1]) <= 50
    assert mine.state.machines[0].ending == "ended: finished" and 0 < mine.state.dollars(time.time()) < 0.02
    found = progress_of(run)
    assert (found.step, found.tokens_per_s, found.loss) == (6, 50.0, 2.5)
    assert "step 6" in progress_line(mine.state, run, now=time.time(), word="ended")


@pytest.mark.serial
def test_a_machine_that_is_taken_away_is_replaced_and_the_run_goes_on(tmp_path: Path, machines: LocalMachines) -> None:
    mine = session(tmp_path, machines, hold=3)
    home = tmp_path / "runs" / "r" / "checkpoints"
    until(lambda: mine.look() or (home / "step-00000003").is_dir(), what="checkpoint 3 is not here")
    [machine] = machines.machines("lcp-")
    os.killpg(int((machines.folder / machine.number / "group").read_text()), signal.SIGKILL)  # preempted
    until(lambda: not machines.machines("lcp-"), what="it still lives")
    mine.hold = 0
    assert mine.run() == "finished"
    first, second = mine.state.machines
    assert "taken away" in first.ending and second.ending == "ended: finished"
    second_rows = (machines.folder / second.name / "runs" / "r" / "metrics.jsonl").read_text().splitlines()
    assert [line.split(",")[0] for line in second_rows] == [f'{{"step": {n}' for n in (4, 5, 6)], (
        "from the newest checkpoint"
    )


@pytest.mark.serial
def test_a_failed_setup_ends_the_machine_and_its_log_is_here_and_shown(
    tmp_path: Path, machines: LocalMachines, caplog: pytest.LogCaptureFixture
) -> None:
    mine = session(tmp_path, machines, setup=("echo 'about to \033[2Jfail'", "exit 3", "echo never"))
    ending = mine.run()
    assert "the end of setup.log:\n    about to \u241b[2Jfail" in caplog.text
    assert ending.startswith("set-up failed with 3") and machines.machines("lcp-") == []
    assert (mine.home / "logs" / "setup.log").read_text() == "about to \033[2Jfail\n"
    assert not (tmp_path / "runs" / "r" / "metrics.jsonl").exists(), "nothing was trained"


@pytest.mark.serial
def test_machines_that_end_before_anybody_saw_their_training_are_not_replaced_for_ever(
    tmp_path: Path, machines: LocalMachines
) -> None:
    mine = session(tmp_path, machines, deadline_s=0.0, setup=("sleep 30",))
    assert mine.run().startswith("3 machines ended before their training was seen to begin")
    assert [each.attempt for each in mine.state.machines] == [1, 2, 3] and machines.machines("lcp-") == []


@pytest.mark.serial
def test_a_machine_ends_itself_at_its_deadline_with_nobody_looking(tmp_path: Path, machines: LocalMachines) -> None:
    mine = session(tmp_path, machines, hold=2, deadline_s=2.0)
    machine = mine.launch()
    assert machine is not None and machines.machines("lcp-")
    until(lambda: not machines.machines("lcp-"), what="it has not ended itself")
    assert (machines.folder / machine.number / "destroyed").exists()
    with contextlib.suppress(ProcessLookupError, ChildProcessError):
        os.waitpid(-1, os.WNOHANG)
    assert mine.close("by hand") == [] and mine.state.is_over


SCONTROL = """\
#!/bin/bash
# SLURM's command, for one job: it notes the requested limit of time, and may refuse it.
case "$*" in
    "show job 7 --oneliner") echo "JobId=7 StartTime={begin} EndTime={end} Deadline=N/A" ;;
    *) echo "$*" >> "{folder}/asked"; exit {refused} ;;
esac
"""


def ignored_signals(process: int) -> set[int]:
    [mask] = [line for line in Path(f"/proc/{process}/status").read_text().splitlines() if line.startswith("SigIgn")]
    bits = int(mask.split()[1], 16)
    return {number for number in range(1, 65) if bits >> (number - 1) & 1}


@pytest.mark.serial
@pytest.mark.parametrize(
    ("end", "refused", "asked", "survives"),
    [
        (3600, 0, ["update JobId=7 TimeLimit=3"], False),
        (3600, 1, ["update JobId=7 TimeLimit=3"], True),
        (60, 1, [], False),
        (None, 0, ["update JobId=7 TimeLimit=3"], False),
    ],
    ids=["shortened", "refused", "ends earlier", "without a limit"],
)
def test_where_slurm_ends_the_job_the_self_destruct_does_not_outlive_sigterm(
    tmp_path: Path, end: int | None, refused: int, asked: list[str], survives: bool
) -> None:
    """The deadline is in 80 s, of a job that began 20 s ago."""
    now = time.time()
    begin = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(now - 20))
    until_then = "Unknown" if end is None else time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(now + end))
    program = tmp_path / "scontrol"
    program.write_text(SCONTROL.format(begin=begin, end=until_then, folder=tmp_path, refused=refused))
    program.chmod(0o755)
    lines = arming(deadline=now + 80, now=now)
    done = subprocess.run(
        ["bash", "-c", f'{lines}\necho "$!"'],
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "7"},
        capture_output=True,
        text=True,
        check=True,
        process_group=0,
    )
    process = int(done.stdout)
    try:
        until(lambda: signal.SIGHUP in ignored_signals(process), what="it is not armed")
        assert (signal.SIGTERM in ignored_signals(process)) is survives
        assert (tmp_path / "asked").exists() is bool(asked)
        if asked:
            assert (tmp_path / "asked").read_text().splitlines() == asked
    finally:
        os.killpg(os.getpgid(process), signal.SIGKILL)


SCANCEL = """\
#!/bin/bash
echo "$*" >> "{folder}/asked"
if [ "$1" = --signal=TERM ] && [ -n "{removes}" ]; then
    kill -TERM "$(cat "{folder}/script")"
    rm -r "{folder}/parcel"
fi
"""


@pytest.mark.serial
@pytest.mark.parametrize("removes", [True, False], ids=["the job removes its folders", "the job hangs"])
def test_a_job_of_slurm_is_given_time_to_remove_its_folders(tmp_path: Path, removes: bool) -> None:
    """What ends the machine survives its own signal, and cancels the job when the folder is still there later."""
    (tmp_path / "parcel").mkdir()
    programs = {
        "scancel": SCANCEL.format(folder=tmp_path, removes="1" if removes else ""),
        "scontrol": "#!/bin/sh\nexit 1\n",
        "sleep": '#!/bin/sh\n[ "$1" = 1 ] || exec /bin/sleep "$@"\n',
    }
    for name, text in programs.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    now = time.time()
    lines = arming(deadline=now + 1000, now=now)
    script = subprocess.Popen(
        ["bash", "-c", f'{lines}\necho "$$" > "{tmp_path}/script"\nlcp_destroy'],
        env={
            "PATH": f"{tmp_path}:{os.environ['PATH']}",
            "SLURM_JOB_ID": "7",
            "LCP_HERE": str(tmp_path / "parcel"),
        },
        start_new_session=True,
    )
    asked = tmp_path / "asked"
    gently, at_once = "--signal=TERM --full 7\n", "7\n"
    try:
        if removes:
            assert script.wait(timeout=30) == 0 and asked.read_text() == gently
        else:
            until(lambda: asked.exists() and asked.read_text() == gently + at_once, what="the job is not cancelled")
    finally:
        os.killpg(script.pid, signal.SIGKILL)
        script.wait()


def command_line(process: int) -> bytes:
    """Of a process; empty once it has ended."""
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


@pytest.mark.serial
@pytest.mark.parametrize("whom", ["all processes", "the script", "what it waits for"])
def test_a_machine_that_waits_leaves_at_sigterm_and_does_not_end_itself_again(tmp_path: Path, whom: str) -> None:
    (tmp_path / "code").mkdir()
    work = NodeWork(setup=[], command=["true"], stop_at=0.0, now=0.0, linger_s=97, run_folder="runs/r")
    (tmp_path / "node.sh").write_text(
        node_script(work, arming_lines=f'lcp_destroy() {{ : > "{tmp_path}/destroyed"; }}')
    )
    machine = subprocess.Popen(["bash", str(tmp_path / "node.sh")], start_new_session=True)

    def waits() -> list[int]:
        text = Path(f"/proc/{machine.pid}/task/{machine.pid}/children").read_text()
        return [number for number in map(int, text.split()) if command_line(number) == b"sleep\x0097\0"]

    until(waits, what="it does not wait")
    [sleeper] = waits()
    if whom == "all processes":
        os.killpg(machine.pid, signal.SIGTERM)
    else:
        os.kill(machine.pid if whom == "the script" else sleeper, signal.SIGTERM)
    assert machine.wait(timeout=30) == 143
    assert (tmp_path / "state").read_text() == "ended 0\n" and not (tmp_path / "destroyed").exists()
    until(lambda: not command_line(sleeper), what="what it waited for goes on")


@pytest.mark.serial
def test_a_machine_on_which_nothing_begins_is_ended(
    tmp_path: Path, machines: LocalMachines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("litgpt_core.deploy.rental.session.SILENT_S", 0.0)
    monkeypatch.setattr("litgpt_core.deploy.rental.mirror.Mirror.state", lambda mirror, shell: FarState())
    mine = session(tmp_path, machines, hold=1)
    assert mine.run() == "node.sh never began on the machine" and machines.machines("lcp-") == []


@pytest.mark.serial
def test_a_machine_without_time_to_train_says_so_and_is_ended(tmp_path: Path, machines: LocalMachines) -> None:
    mine = session(tmp_path, machines, stop_s=-5.0)
    assert "its share of the budget is used up" in mine.run()
    assert not (tmp_path / "runs" / "r" / "limits").exists() and machines.machines("lcp-") == []


# ---- what a machine may send


def archive(*members: tuple[str, bytes | str | None]) -> io.BytesIO:
    """A tar archive: bytes are files, strings are links, None is a device."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            if isinstance(content, bytes):
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
            else:
                info.type = tarfile.SYMTYPE if isinstance(content, str) else tarfile.CHRTYPE
                info.linkname = content or ""
                tar.addfile(info)
    stream.seek(0)
    return stream


def test_only_regular_files_with_plain_names_are_taken(tmp_path: Path) -> None:
    good = archive(("./a/b", b"x"), ("./link", "/etc/passwd"), ("./dev", None), ("./c", b"yy"))
    assert unpack(good, tmp_path / "one") == 2
    assert sorted(p.relative_to(tmp_path / "one").as_posix() for p in (tmp_path / "one").rglob("*")) == [
        "a",
        "a/b",
        "c",
    ]
    for name in ("../x", "/etc/x", "a/../../x", "a\\b"):
        with pytest.raises(RemoteProblem, match="sent a file named"):
            unpack(archive((name, b"x")), tmp_path / "two")
    with pytest.raises(RemoteProblem, match="more than"):
        unpack(archive(("a", b"x" * 100)), tmp_path / "three", max_bytes=50)
    with pytest.raises(RemoteProblem, match="damaged"):
        unpack(io.BytesIO(b"not an archive" * 100), tmp_path / "four")
    cut = archive(("a", b"x" * 5000))
    with pytest.raises(RemoteProblem, match="damaged"):
        unpack(io.BytesIO(cut.getvalue()[:2000]), tmp_path / "five")
    assert not list(tmp_path.glob("x")) and not Path("/etc/x").exists()


def test_a_checkpoint_that_is_not_complete_is_not_put_in_place(tmp_path: Path) -> None:
    far = tmp_path / "far"
    step = far / "runs" / "r" / "checkpoints" / "step-00000001"
    step.mkdir(parents=True)
    (step / "lit_model.pth").write_bytes(b"half of it")
    here = Mirror(tmp_path / "here", far="runs/r", logs=tmp_path / "logs")
    with pytest.raises(RemoteProblem, match="came without"):
        here.pull_checkpoints(LocalShell(far))
    (step / "checksums.json").write_text('{"lit_model.pth": {"bytes": 10, "sha256": "00"}}')
    with pytest.raises(RemoteProblem, match="was not complete"):
        here.pull_checkpoints(LocalShell(far))
    assert not (tmp_path / "here" / "checkpoints" / "step-00000001").exists()
    with pytest.raises(RemoteProblem, match="failed with 3"):
        LocalShell(far).run("exit 3", timeout_s=10)
    with pytest.raises(RemoteProblem, match="did not answer"):
        LocalShell(far).run("sleep 5", timeout_s=0.05)


def test_the_newest_and_the_best_checkpoint_are_copied_once_and_linked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirror_module, "verify", lambda path: None)
    linked: dict[str, str] = {}
    monkeypatch.setattr(mirror_module, "link", lambda path, name: linked.update({name: path.name}))
    far = tmp_path / "far" / "runs" / "r" / "checkpoints"
    for step in (1, 2, 10):
        (far / f"step-{step:08d}").mkdir(parents=True)
        (far / f"step-{step:08d}" / "checksums.json").write_text("{}")
    (far / "best").symlink_to("step-00000002")
    here = Mirror(tmp_path / "here", far="runs/r", logs=tmp_path / "logs")
    assert here.pull_checkpoints(LocalShell(tmp_path / "far")) == ["step-00000002", "step-00000010"]
    assert linked == {"last": "step-00000010", "best": "step-00000002"}
    assert here.pull_checkpoints(LocalShell(tmp_path / "far")) == []
    (far / "step-00000011").mkdir()
    (far / "step-00000011" / "checksums.json").write_text("{}")
    (far / "best").unlink()
    (far / "best").symlink_to("step-00000011")
    assert here.pull_checkpoints(LocalShell(tmp_path / "far")) == ["step-00000011"]
    assert linked == {"last": "step-00000011", "best": "step-00000011"}
    (tmp_path / "empty").mkdir()
    assert Mirror(tmp_path / "h", far="runs/none", logs=tmp_path).pull_checkpoints(LocalShell(tmp_path / "empty")) == []


def test_rows_here_reach_to_the_checkpoints_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that are written between two commands are here before a checkpoint that follows them."""
    monkeypatch.setattr(mirror_module, "verify", lambda path: None)
    monkeypatch.setattr(mirror_module, "link", lambda path, name: None)
    run = tmp_path / "far" / "runs" / "r"
    here = Mirror(tmp_path / "here", far="runs/r", logs=tmp_path / "logs")

    class Busy(LocalShell):
        """A machine whose run takes a step and saves it before every command."""

        steps = 0

        def run(self, *args: Any, **settings: Any) -> bytes:
            self.steps += 1
            step = run / "checkpoints" / f"step-{self.steps:08d}"
            step.mkdir(parents=True)
            (step / "checksums.json").write_text("{}")
            with (run / "metrics.jsonl").open("a") as rows:
                rows.write(f'{{"step": {self.steps}}}\n')
            return super().run(*args, **settings)

    shell = Busy(tmp_path / "far")
    here.pull_small(shell)
    for _ in range(3):
        (newest,) = here.pull_checkpoints(shell)
        rows = (here.folder / "metrics.jsonl").read_text().splitlines()
        assert len(rows) >= int(newest.removeprefix("step-"))


def test_odd_words_about_the_state_are_no_state(tmp_path: Path) -> None:
    here = Mirror(tmp_path / "here", far="runs/r", logs=tmp_path / "logs")
    for text, word, code in (
        ("training\n", "training", 0),
        ("ended 143\n", "ended", 143),
        ("$(rm -rf)\n", "", 0),
        ("", "", 0),
    ):
        (tmp_path / "state").write_text(text)
        found = here.state(LocalShell(tmp_path))
        assert (found.word, found.code) == (word, code)
    (tmp_path / "state").unlink()
    assert here.state(LocalShell(tmp_path)).word == ""
