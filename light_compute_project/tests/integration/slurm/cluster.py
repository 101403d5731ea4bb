"""A real SLURM on this machine: munged, slurmctld, and a slurmd for each of two virtual nodes, in a folder of its own.

Nothing outside that folder is written: nodes need no line in /etc/hosts, because SLURM knows their address. Nothing
stays running: a process of its own ends jobs and daemons when the tests end, also when they are killed.
"""

from __future__ import annotations

import getpass
import os
import re
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

NODES = ("lightcompute1", "lightcompute2")
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "scancel", "squeue", "sinfo")
PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
"""Debian puts daemons where only root looks."""

CONFIGURATION = """\
ClusterName=lightcompute
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SwitchType=switch/none
ReturnToService=2
MessageTimeout=60
KillWait={kill_wait}
MinJobAge=3600
{nodes}
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
PartitionName=two Nodes={names} Default=YES MaxTime=60 State=UP PriorityTier=1 GraceTime=30 PreemptMode=REQUEUE
PartitionName=urgent Nodes={names} MaxTime=60 State=UP PriorityTier=9 PreemptMode=OFF
"""

UNDERTAKER = """
import getpass, os, signal, subprocess, sys, time

sys.stdin.read()  # until the tests close it, or are killed
everything = ["--user=" + getpass.getuser()]
for attempt in range(60):
    subprocess.run(["scancel", "--signal=KILL", "--full", *everything], timeout=30)
    subprocess.run(["scancel", *everything], timeout=30)
    if not subprocess.run(["squeue", "-h"], capture_output=True, timeout=30).stdout.strip():
        break
    time.sleep(0.5)
for number in (signal.SIGTERM, signal.SIGKILL):
    for daemon in map(int, reversed(sys.argv[1:])):
        try:
            os.kill(daemon, number)
        except ProcessLookupError:
            pass
    time.sleep(1)
"""
"""Ends every job, then every daemon, however the tests end."""


class Cluster:
    """Two nodes with four cores each, as far as SLURM believes.

    Args:
        folder: Its own; sockets inside need a short path.
        gpu: Type of the one GPU that each node claims to have; empty: none.
        kill_wait: Seconds from SIGTERM to SIGKILL when a job is cancelled.
    """

    def __init__(self, folder: Path, *, gpu: str = "", kill_wait: int = 20) -> None:
        self.folder, self.gpu, self.kill_wait = folder, gpu, kill_wait
        self.environment = os.environ | {"SLURM_CONF": str(folder / "slurm.conf"), "PATH": PATH}
        self._daemons: list[subprocess.Popen[bytes]] = []
        self._undertaker: subprocess.Popen[bytes] | None = None

    # ---- life and death ----

    def start(self) -> None:
        ports = free_ports(1 + len(NODES))
        (self.folder / "state").mkdir()
        key = self.folder / "munge.key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o600)
        nodes = (
            f"NodeName={name} NodeHostname={socket.gethostname()} NodeAddr=127.0.0.1 Port={port} "
            f"CPUs=4 RealMemory=20000 State=UNKNOWN{f' Gres=gpu:{self.gpu}:1' if self.gpu else ''}"
            for name, port in zip(NODES, ports[1:], strict=True)
        )
        text = CONFIGURATION.format(
            host=socket.gethostname(),
            port=ports[0],
            user=getpass.getuser(),
            folder=self.folder,
            kill_wait=self.kill_wait,
            nodes="\n".join(nodes),
            names=",".join(NODES),
        )
        (self.folder / "slurm.conf").write_text(text + ("GresTypes=gpu\n" if self.gpu else ""))
        if self.gpu:
            (self.folder / "gres.conf").write_text(f"AutoDetect=off\nName=gpu Type={self.gpu} File=/dev/null\n")
        files = [f"--{name}-file={self.folder}/munge.{name}" for name in ("key", "pid", "log", "seed")]
        self._daemon("munged", "--foreground", "--force", f"--socket={self.folder}/munge.socket", *files)
        wait_for((self.folder / "munge.socket").exists, "munged")
        self._daemon("slurmctld", "-D", "-c")
        for name in NODES:
            self._daemon("slurmd", "-D", "-N", name)
        pids = [str(daemon.pid) for daemon in self._daemons]
        self._undertaker = subprocess.Popen(
            [sys.executable, "-c", UNDERTAKER, *pids],
            env=self.environment,
            stdin=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        wait_for(
            lambda: self.run("sinfo", "-p", "two", "-h", "-o", "%t %D", check=False).stdout.split() == ["idle", "2"],
            "nodes",
        )

    def _daemon(self, *command: str) -> None:
        with (self.folder / f"{command[0]}.console").open("ab") as log:
            self._daemons.append(
                subprocess.Popen(command, env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            )

    def stop(self) -> None:
        """Have the undertaker end every job and every daemon; what started before there was one is ended here."""
        if self._undertaker is not None:
            self._undertaker.communicate(timeout=120)
        for daemon in reversed(self._daemons):
            daemon.terminate()
            daemon.wait(timeout=30)

    def consoles(self) -> str:
        """What the daemons said, for a failure's report."""
        files = sorted([*self.folder.glob("*.console"), *self.folder.glob("*.log")])
        return "\n".join(f"== {file.name}\n{file.read_text(errors='replace')[-3000:]}" for file in files)

    # ---- commands ----

    @property
    def for_shell(self) -> dict[str, str]:
        """What commands need in their environment to reach this cluster."""
        return {name: self.environment[name] for name in ("SLURM_CONF", "PATH")} | {"GLOO_SOCKET_IFNAME": "lo"}

    def run(self, *command: str, check: bool = True, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=120, check=False, cwd=cwd
        )
        assert not check or done.returncode == 0, f"{command}: {done.stdout}\n{done.stderr}"
        return done

    def submit(self, script: str, folder: Path) -> str:
        path = folder / "job.sbatch"
        path.write_text(script)
        return self.run("sbatch", "--parsable", str(path), cwd=folder).stdout.strip()

    def job(self, number: str) -> dict[str, str]:
        """The fields of `scontrol show job`."""
        shown = self.run("scontrol", "show", "job", number, "--oneliner", check=False).stdout
        return dict(re.findall(r"(\w[\w/:]*)=(\S*)", shown))

    def warn(self, number: str, name: str = "USR1") -> None:
        """What SLURM sends before the end of a job's time."""
        self.run("scancel", f"--signal={name}", number)

    def wait_for_state(self, number: str, *states: str, seconds: float = 150) -> dict[str, str]:
        wait_for(
            lambda: self.job(number).get("JobState") in states,
            f"job {number} {states}",
            seconds=seconds,
            look=lambda: self.job(number),
        )
        return self.job(number)

    def let_it_return(self, number: str, *, restarts: int = 1) -> None:
        """A job that was put back waits two minutes in the queue; here two seconds, after which nodes no longer take
        its new start for the one they have just ended.
        """
        wait_for(
            lambda: (job := self.job(number)).get("Restarts") == str(restarts) and job["JobState"] == "PENDING",
            f"job {number} back in the queue",
            look=lambda: self.job(number),
        )
        time.sleep(2)
        self.run("scontrol", "update", f"jobid={number}", "StartTime=now")


def free_ports(number: int) -> list[int]:
    sockets = [socket.socket() for _ in range(number)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [int(one.getsockname()[1]) for one in sockets]
    for one in sockets:
        one.close()
    return ports


def wait_for(
    condition: Callable[[], bool], what: str, *, seconds: float = 60, look: Callable[[], object] = lambda: ""
) -> None:
    """Wait, or fail with what `look` finds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {seconds:.0f} s {look()}"
        time.sleep(0.05)
