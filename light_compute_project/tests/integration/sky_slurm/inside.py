"""The first process of the namespaces of `far_cluster.py`: a private /tmp and /run, another home for root, SLURM, sshd.

    python -P -m tests.integration.sky_slurm.inside SETTINGS.json

It says `ready` and waits until its standard input ends. As the first process of a PID namespace it takes every other
one of it along, however it ends: daemons, jobs, SkyPilot's server, whatever those have started.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.integration.slurm.cluster import NODES, Cluster

OLD_TMP = Path("/mnt")
"""Where the /tmp of this machine is inside, so that folders in it can be brought back to their names."""

SSHD = """\
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/authorized_keys
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
MaxStartups 200
MaxSessions 200
SetEnv {environment}
"""


def mount(*words: str | Path) -> None:
    subprocess.run(["mount", *map(str, words)], check=True)


def private_folders(folder: Path, *, kept: list[Path], uv_cache: Path) -> None:
    """Give this namespace a /tmp and a /run of its own; `kept` stay where they are.

    SkyPilot writes sockets and its runtime to /tmp, and has uv on a node keep its cache there.
    """
    resolver = Path("/etc/resolv.conf").resolve()
    names = resolver.read_text() if resolver.is_relative_to("/run") else ""
    mount("--make-rprivate", "/")
    mount("--rbind", "/tmp", OLD_TMP)
    mount("--bind", folder / "tmp", "/tmp")
    for path in [path for path in kept if path.is_relative_to("/tmp")]:
        path.mkdir(parents=True, exist_ok=True)
        mount("--bind", OLD_TMP / path.relative_to("/tmp"), path)
    cache = Path(f"/tmp/uv_cache_{os.getuid()}")
    cache.mkdir()
    mount("--bind", uv_cache, cache)
    mount("-t", "tmpfs", "none", "/run")
    Path("/run/sshd").mkdir()
    if names:
        resolver.parent.mkdir(parents=True, exist_ok=True)
        resolver.write_text(names)


def other_accounts(folder: Path) -> None:
    """The home of root's account is that of a node, whatever $HOME says on the laptop; nodes have names."""
    lines = Path("/etc/passwd").read_text().splitlines()
    accounts = [
        ":".join([*line.split(":")[:5], str(folder / "node"), "/bin/bash"]) if line.startswith("root:") else line
        for line in lines
    ]
    (folder / "passwd").write_text("\n".join(accounts) + "\n")
    (folder / "hosts").write_text(Path("/etc/hosts").read_text() + "".join(f"127.0.0.1 {name}\n" for name in NODES))
    mount("--bind", folder / "passwd", "/etc/passwd")
    mount("--bind", folder / "hosts", "/etc/hosts")


def start_sshd(folder: Path, port: int, environment: dict[str, str]) -> None:
    text = SSHD.format(
        port=port, folder=folder, environment=" ".join(f'"{name}={value}"' for name, value in environment.items())
    )
    (folder / "sshd_config").write_text(text)
    with (folder / "sshd.console").open("ab") as log:
        subprocess.Popen(
            [shutil.which("sshd", path="/usr/sbin:/usr/bin") or "sshd", "-D", "-e", "-f", str(folder / "sshd_config")],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )


def main(settings: dict[str, Any]) -> None:
    folder = Path(settings["folder"])
    private_folders(folder, kept=list(map(Path, settings["kept"])), uv_cache=Path(settings["uv_cache"]))
    other_accounts(folder)
    # SkyPilot's job removes its folders after SIGTERM: with 20 s they were left when the machine was busy.
    cluster = Cluster(folder / "slurm", gpu=settings["gpu"], kill_wait=60)
    try:
        cluster.start()
    except AssertionError as problem:
        sys.exit(f"SLURM does not start: {problem}\n{cluster.consoles()}")
    kept = {name: os.environ[name] for name in settings["variables"] if name in os.environ}
    start_sshd(folder, settings["port"], {**kept, "SLURM_CONF": cluster.environment["SLURM_CONF"]})
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # orphans of this namespace become children of this process
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.read()


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
