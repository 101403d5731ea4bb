"""A rental through the real SkyPilot, whose cloud is a real SLURM on loopback: train, preempt, resume, bring home, end.

    this test -> a mount and process namespace, in which the home folder is an overlay -> the test that does the work
        SLURM of `conftest`, sshd on loopback, SkyPilot's server and its "node": all end with the namespace

SkyPilot installs a runtime on every node; what it downloads from elsewhere is stood in for: uv's installer, and Python
3.10, for which this Python is taken. Nightly: needs root, unshare, sshd, rsync, and packages through uv.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from litgpt_core.core.errors import EnvironmentProblem

INSIDE = "LIGHT_COMPUTE_NAMESPACE"
SOURCE = Path(__file__).resolve().parents[3] / "src"
SBIN = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
pytestmark = [pytest.mark.nightly, pytest.mark.serial, pytest.mark.timeout(1100)]
EXACT = [
    "+experiment=smoke",
    "trainer=deterministic",
    "trainer.accelerator=cpu",
    "trainer.max_steps=150",
    "trainer.log_interval=1",
    "trainer.eval_interval=50",
    "trainer.eval_tokens=2048",
    "trainer.save_interval=1000",
    "trainer.save_every=1s",
    "trainer.global_batch_size=8",
    "trainer.sample_tokens=0",
    "model.dropout=0.1",
    "logger=none",
]
TRACE = ("step", "tokens", "train_loss", "val_loss", "val_bpb", "lr", "grad_norm")
NAMESPACE = """
set -e
mount --make-rprivate /
mount -t overlay overlay -o lowerdir="$HOME",upperdir={place}/up,workdir={place}/work "$HOME"
mount -t tmpfs tmpfs /run && mkdir -p /run/sshd
cp /etc/profile {place}/profile && echo 'test -r {place}/node && . {place}/node' >> {place}/profile
mount --bind {place}/profile /etc/profile
exec "$@"
"""


@pytest.mark.skipif(INSIDE in os.environ, reason="that is here")
def test_a_rental_through_skypilot_in_a_namespace(tmp_path: Path) -> None:
    missing = [name for name in ("unshare", "sshd", "rsync", "ssh-keygen") if shutil.which(name, path=SBIN) is None]
    if os.name != "posix" or os.geteuid() != 0 or missing:
        pytest.skip(f"needs root and openssh-server, rsync and unshare; not found: {', '.join(missing) or 'root'}")
    for name in ("up", "work"):
        (tmp_path / name).mkdir()
    script = NAMESPACE.format(place=tmp_path)
    unshare = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    if subprocess.run([*unshare, "bash", "-c", script, "-", "true"], check=False).returncode:
        pytest.skip("this machine does not let root make namespaces and overlays")
    command = [sys.executable, "-P", "-m", "pytest", "-x", "-q", "-rs", "--nightly", "-p", "no:cacheprovider", __file__]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(
        [*unshare, "bash", "-c", script, "-", *command, "-k", "inside"],
        env=environment | {INSIDE: str(tmp_path)},
        cwd=SOURCE.parents[1],
        capture_output=True,
        text=True,
        timeout=1000,
        check=False,
    )
    said = done.stdout[-6000:] + done.stderr[-2000:]
    if "1 skipped" in done.stdout:
        pytest.skip(said)
    assert done.returncode == 0 and "1 passed" in done.stdout, said


@pytest.fixture
def node(cluster: Any, tmp_path: Path) -> Iterator[Path]:
    """The login node of the cluster over SSH, as SkyPilot's settings name it; the folder of stand-ins."""
    from litgpt_core.core.uv import find_uv

    place, home = Path(os.environ[INSIDE]), Path.home()
    programs = tmp_path / "programs"
    programs.mkdir()
    uv = find_uv("SkyPilot", variable="PATH", example="a folder with uv")
    wrapper = programs / "uv-of-the-node"
    wrapper.write_text(
        f'#!/bin/bash\nfor each; do [ "$each" = 3.10 ] && each={sys.executable}; all+=("$each"); done\n'
        f'exec {shlex.quote(uv)} "${{all[@]}}"\n'
    )
    installer = f'mkdir -p "$UV_INSTALL_DIR" && cp {wrapper} "$UV_INSTALL_DIR/uv" && chmod +x "$UV_INSTALL_DIR/uv"'
    real = shutil.which("curl") or "false"
    (programs / "curl").write_text(
        f'#!/bin/bash\ncase "$*" in *astral.sh*) echo \'{installer}\' ;; *) exec {real} "$@" ;; esac\n'
    )
    for file in programs.iterdir():
        file.chmod(0o755)
    shown = {"PATH": f"{programs}:{SBIN}", "SLURM_CONF": cluster.for_shell["SLURM_CONF"]}
    shown |= {key: os.environ[key] for key in ("SSL_CERT_FILE", "SSL_CERT_DIR", "PIP_CERT") if key in os.environ}
    (place / "node").write_text("".join(f"export {key}={shlex.quote(value)}\n" for key, value in shown.items()))
    for key in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / key)], check=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    (tmp_path / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {tmp_path}/host\nPidFile none\nStrictModes no\nUsePAM no\n"
        f"AuthorizedKeysFile {tmp_path}/user.pub .ssh/authorized_keys\nPermitRootLogin yes\nMaxSessions 100\n"
        "PasswordAuthentication no\nMaxStartups 100\nSubsystem sftp internal-sftp\n"
        "SetEnv " + " ".join(f"{key}={value}" for key, value in shown.items()) + "\n"
    )
    sshd = shutil.which("sshd", path=SBIN) or ""
    with (tmp_path / "sshd.log").open("wb") as log:
        process = subprocess.Popen([sshd, "-D", "-e", "-f", str(tmp_path / "sshd_config")], stdout=log, stderr=log)
    (home / ".slurm").mkdir(exist_ok=True)
    (home / ".slurm" / "config").write_text(
        f"Host here\n    HostName 127.0.0.1\n    Port {port}\n    User root\n    IdentityFile {tmp_path}/user\n"
        "    StrictHostKeyChecking no\n    UserKnownHostsFile /dev/null\n"
    )
    shutil.rmtree(home / ".sky", ignore_errors=True)  # of the overlay
    (home / ".sky").mkdir()
    (home / ".sky" / "config.yaml").write_text("allowed_clouds: [slurm]\n")
    yield programs
    process.terminate()
    process.wait(timeout=30)


@pytest.mark.skipif(INSIDE not in os.environ, reason="runs in the namespace of the test above")
def test_inside_a_preempted_rental_is_bit_equal_and_leaves_nothing(
    shell: Any, cluster: Any, node: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from litgpt_core.deploy.rental.ledger import Ledger
    from litgpt_core.deploy.rental.request import Place, RentalRequest
    from litgpt_core.deploy.rental.session import RentalSession
    from litgpt_core.deploy.rental.skypilot import SkyPilot

    shell.train(*EXACT, "run.name=whole")
    monkeypatch.setenv("LIGHT_COMPUTE_RENTALS", str(tmp_path / "rentals"))
    try:
        sky = SkyPilot(extras=["slurm"])
    except EnvironmentProblem as problem:
        pytest.skip(str(problem))
    there = subprocess.run([*sky.program, "--version"], capture_output=True, text=True, timeout=400, check=False)
    if there.returncode:
        pytest.skip(f"SkyPilot cannot be had: {there.stderr.strip()[-300:]}")
    python = f'#!/bin/bash\nPYTHONPATH=light_compute_project/src exec {sys.executable} "$@"\n'
    setup = f"mkdir -p .venv/bin && printf %s {shlex.quote(python)} > .venv/bin/python && chmod +x .venv/bin/python"
    request = RentalRequest(
        name="r",
        rental_id="a1b2c3",
        engine="sky",
        places=(Place(provider="slurm", gpu="", count=1, accelerator="", hourly=1.0, regions=("here", "two")),),
        overrides=(*EXACT, f"data.cache_dir={shell.cache}"),
        run_dir=str(shell.folder / "runs"),
        parcel=str(tmp_path / "parcel"),
        budget=20.0,
        max_hourly_cost=5.0,
        setup=(setup,),
        poll_s=1.0,
        pull_every_s=1.0,
    )
    ledger = Ledger()
    ledger.opened(request, time=time.time())
    preempted = threading.Event()

    def preempt() -> None:
        checkpoints = shell.folder / "runs" / "r" / "checkpoints"
        while not any(checkpoints.glob("step-*")):
            time.sleep(0.2)
        cluster.run("scancel", "--user=root")
        preempted.set()

    threading.Thread(target=preempt, daemon=True).start()
    ending = RentalSession(request, provider=sky, ledger=ledger).run()
    log = "\n".join(path.read_text(errors="replace")[-2000:] for path in (tmp_path / "rentals").rglob("*.log"))
    assert ending == "finished" and preempted.is_set(), (ending, log)
    state = ledger.find(request.key)
    assert len(state.machines) == 2 and state.is_over and 0 < state.dollars(time.time()) < 1
    runs = shell.folder / "runs"

    def rows(name: str) -> list[tuple[Any, ...]]:
        lines = (runs / name / "metrics.jsonl").read_text().splitlines()
        return [tuple(row.get(key) for key in TRACE) for row in map(json.loads, lines)]

    assert rows("r") == rows("whole"), "bit for bit"
    assert (runs / "r" / "final").is_dir()
    assert not cluster.run("squeue", "-h").stdout.strip(), "nothing is left in the queue"
    assert not sky.machines(request.prefix)
