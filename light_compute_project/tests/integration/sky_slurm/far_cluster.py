"""SkyPilot's "cloud" without an account: a real SLURM of two nodes behind a real sshd, in namespaces of this machine.

    laptop   HOME with ~/.slurm/config and a key; `lcp deploy`, its guard, SkyPilot's client and server
    sshd     on 127.0.0.1, root with its own key; the account's home is `node`, which SkyPilot fills
    SLURM    munged, slurmctld, two slurmd; each node claims a GPU of type T4

All of it runs in a mount and a PID namespace: nothing is written outside `folder` and uv's cache, and all processes end
with the namespace, also when the tests are killed. Only the network is that of the machine: SkyPilot installs itself.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from tests.integration.slurm.cluster import PATH, PROGRAMS, free_ports, wait_for

from litgpt_core.core.errors import EnvironmentProblem
from litgpt_core.core.uv import find_uv
from litgpt_core.deploy.rental.skypilot import sky_program

PROJECT = Path(__file__).resolve().parents[3]
SERVER_PORT = 46580
"""Of SkyPilot's server, always: one that runs already would be used, with the clouds of whoever started it."""
REGION = "lightcompute"
GPU = "T4"
CATALOG = ".sky/catalogs/v8/common"
"""Where SkyPilot looks for names of GPUs before it downloads a list of them."""
TOOLS = ("unshare", "nsenter", "mount", "sshd", "ssh", "ssh-keygen", "rsync", "git")
VARIABLES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "UV_INDEX_URL", "UV_DEFAULT_INDEX", "HTTPS_PROXY", "https_proxy")
"""What uv needs on a node to reach packages, as it does here."""

CURL = """\
#!/bin/bash
# In place of curl on a node, where SkyPilot fetches the installer of uv: this machine's uv is installed.
echo 'mkdir -p "$UV_INSTALL_DIR" && cp {folder}/bin/uv-of-a-node "$UV_INSTALL_DIR/uv"'
"""
UV = """\
#!/bin/bash
# SkyPilot wants Python 3.10 on a node, which would be downloaded; this one is here.
words=()
for word in "$@"; do if [ "$word" = 3.10 ]; then words+=({python}); else words+=("$word"); fi; done
exec {uv} "${{words[@]}}"
"""
BASHRC = """\
# As Debian's: a shell that is not interactive reads no further
case $- in *i*) ;; *) return ;; esac
"""


def obstacle() -> str:
    """Why this machine cannot do it; empty if it can."""
    if os.name != "posix" or os.geteuid() != 0:
        return "needs root, for namespaces of its own"
    missing = [name for name in (*PROGRAMS, *TOOLS) if shutil.which(name, path=PATH) is None]
    if missing:
        return f"not found: {', '.join(missing)} (apt-get install slurm-wlm munge openssh-server rsync)"
    try:
        find_uv("SkyPilot", variable="LIGHT_COMPUTE_SKY", example="/path/to/sky")
    except EnvironmentProblem as problem:
        return problem.given
    if sys.version_info >= (3, 12):
        return "SkyPilot's runtime on a node needs a Python below 3.12, and this is the one that is here"
    probe = subprocess.run(["unshare", "--mount", "--pid", "--fork", "true"], capture_output=True, text=True)
    if probe.returncode:
        return f"this machine allows no namespaces: {probe.stderr.strip()}"
    with socket.socket() as one:
        if one.connect_ex(("127.0.0.1", SERVER_PORT)) == 0:
            return f"a server of SkyPilot runs here already (port {SERVER_PORT}): sky api stop"
    return ""


class FarCluster:
    """The namespaces, and commands in them.

    Args:
        folder: Its own; emptied at the end. Sockets inside need a short path.
        cache: Of the user, where uv keeps packages.
        kept: Folders that commands inside need under their names.
    """

    def __init__(self, folder: Path, *, cache: Path, kept: Sequence[Path]) -> None:
        self.folder, self.laptop = folder, folder / "laptop"
        self.port = free_ports(1)[0]
        self._kept, self._uv_cache = kept, Path(os.environ.get("UV_CACHE_DIR") or cache / "uv")
        self._holder: subprocess.Popen[str] | None = None
        dropped = ("PYTHONDONTWRITEBYTECODE", "LIGHT_COMPUTE_SKY")
        self.environment = {
            key: value
            for key, value in os.environ.items()
            if key not in dropped and not key.startswith(("WANDB_", "SKYPILOT_", "SLURM_"))
        }
        self.environment |= {
            "HOME": str(self.laptop),
            "PATH": PATH,
            "XDG_CACHE_HOME": str(cache),
            "UV_CACHE_DIR": str(self._uv_cache),
            "SLURM_CONF": str(folder / "slurm" / "slurm.conf"),
            "SKYPILOT_DISABLE_USAGE_COLLECTION": "1",
            "LIGHT_COMPUTE_RENTALS": str(folder / "rentals"),
            "OMP_NUM_THREADS": "1",
        }

    # ---- life and death

    def start(self) -> None:
        """Have SLURM and sshd run. Raises AssertionError, with what they said."""
        self._write_files()
        with (self.folder / "inside.console").open("ab") as log:
            self._holder = subprocess.Popen(
                [
                    *("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"),
                    *(sys.executable, "-P", "-m", "tests.integration.sky_slurm.inside"),
                    str(self.folder / "settings.json"),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                cwd=PROJECT,
                env={**self.environment, "PYTHONPATH": str(PROJECT)},
            )
        late = threading.Timer(120, self._holder.kill)
        late.start()
        assert self._holder.stdout is not None
        said = self._holder.stdout.readline()
        late.cancel()
        assert said == "ready\n", f"the far cluster does not start: {self.consoles()}"
        wait_for(lambda: self.run("ssh", *self.ssh_words(), "true").returncode == 0, "sshd", look=self.consoles)

    def stop(self) -> None:
        """End every process of the namespaces, then remove the folder."""
        if self._holder is not None:
            self._holder.kill()  # --kill-child: its child, the first process inside, which takes all others along
            self._holder.communicate(timeout=60)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _write_files(self) -> None:
        for name in ("tmp", "node", "slurm", "bin", "laptop/.slurm", f"laptop/{CATALOG}"):
            (self.folder / name).mkdir(parents=True)
        self._uv_cache.mkdir(parents=True, exist_ok=True)
        keygen = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f"]
        for key in (self.folder / "host_key", self.laptop / "key"):
            subprocess.run([*keygen, str(key)], check=True, capture_output=True)
        shutil.copy(self.laptop / "key.pub", self.folder / "authorized_keys")
        for name, text in self._texts().items():
            (self.folder / name).write_text(text)
        for name in ("curl", "uv-of-a-node"):
            (self.folder / "bin" / name).chmod(0o755)

    def _texts(self) -> dict[str, str]:
        """Files by their names in the folder."""
        uv = find_uv("SkyPilot", variable="LIGHT_COMPUTE_SKY", example="/path/to/sky")
        settings = {
            "folder": str(self.folder),
            "kept": [str(path) for path in (PROJECT.parent, self.folder, *self._kept)],
            "uv_cache": str(self._uv_cache),
            "gpu": GPU,
            "port": self.port,
            "variables": VARIABLES,
        }
        login = {"HostName": "127.0.0.1", "Port": self.port, "User": "root", "IdentityFile": self.laptop / "key"}
        offer = f"provider: slurm, gpu: {GPU}, price: 1.0, storage: 0, counts: [1], regions: [{REGION}/two]"
        return {
            "settings.json": json.dumps(settings),
            "bin/curl": CURL.format(folder=self.folder),
            "bin/uv-of-a-node": UV.format(python=Path(sys.base_prefix) / "bin" / "python3", uv=uv),
            "node/.bash_profile": f'export PATH="{self.folder}/bin:$PATH"\n',
            "node/.bashrc": BASHRC,
            "laptop/.slurm/config": f"Host {REGION}\n" + "".join(f"    {key} {it}\n" for key, it in login.items()),
            f"laptop/{CATALOG}/accelerators.csv": f"AcceleratorName,Clouds\n{GPU},['Slurm']\n",
            f"laptop/{CATALOG}/metadata.csv": f"GPU,MemoryGB,Manufacturer\n{GPU},16,NVIDIA\n",
            "laptop/.sky/config.yaml": "allowed_clouds: [slurm]\n",
            "prices.yaml": f"offers: [{{{offer}}}]\n",
        }

    def ssh_words(self) -> list[str]:
        """Options and target of the login node."""
        options = ("-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null")
        return ["-F", "none", *options, "-i", str(self.laptop / "key"), "-p", str(self.port), "root@127.0.0.1"]

    def consoles(self) -> str:
        """What the daemons and the provisioning said, for a failure's report."""
        files = [self.folder / "inside.console", self.folder / "slurm" / "slurmctld.log"]
        files += sorted((self.folder / "node").glob(".sky_provision/*.out"))
        return "\n".join(
            f"== {file.name}\n{file.read_text(errors='replace')[-2000:]}" for file in files if file.is_file()
        )

    # ---- commands

    def _inside(self, words: Sequence[str]) -> list[str]:
        """A command line that runs another in the namespaces, in this cluster's folder."""
        assert self._holder is not None
        [first] = children(self._holder.pid)
        enter = ["nsenter", f"--target={first}", "--mount", "--pid", "--"]
        return [*enter, "/bin/sh", "-c", 'cd "$0" && exec "$@"', str(self.folder), *words]

    def run(self, *words: str, seconds: float = 300) -> subprocess.CompletedProcess[str]:
        """Run a command of the laptop to its end."""
        return subprocess.run(
            self._inside(words),
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=seconds,
            stdin=subprocess.DEVNULL,
        )

    def start_command(self, *words: str, log: Path) -> subprocess.Popen[bytes]:
        """Start a command of the laptop; what it says goes to a file."""
        with log.open("ab") as output:
            return subprocess.Popen(
                self._inside(words), env=self.environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )

    def sky(self, *words: str) -> str:
        """What `sky` says, as a user would run it."""
        done = self.run(*sky_program(["slurm"]), *words)
        assert done.returncode == 0, f"sky {words}: {done.stdout}\n{done.stderr}\n{self.consoles()}"
        return done.stdout

    # ---- what there is

    def jobs(self, run: str = "") -> list[str]:
        """Numbers of the jobs that SLURM has not ended: of the machines of one run, or all."""
        lines = self.run("squeue", "-h", "-o", "%i %j").stdout.splitlines()
        return [line.split()[0] for line in lines if f"-{run}-" in line or not run]

    def node_folders(self) -> list[str]:
        """Homes of SkyPilot's machines on the nodes."""
        return sorted(path.name for path in (self.folder / "node" / ".sky_clusters").glob("*"))

    def processes(self, *words: str) -> list[int]:
        """Processes inside, by their number out here, whose command line has all the words."""
        assert self._holder is not None
        [first] = children(self._holder.pid)
        mine, found = Path(f"/proc/{first}/ns/pid").readlink(), []
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if (entry / "ns" / "pid").readlink() == mine:
                    text = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                    if all(word in text for word in words):
                        found.append(int(entry.name))
        return found

    def tree(self) -> str:
        """All processes inside, for a failure's report."""
        return self.run("ps", "-eo", "pid,ppid,pgid,sid,stat,etimes,args", "--forest", "--columns", "250").stdout

    def kill(self, *words: str) -> int:
        """SIGKILL to every process inside whose command line has all the words; how many there were."""
        found = self.processes(*words)
        for number in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        return len(found)


def children(process: int) -> list[int]:
    """Of a process."""
    return [int(word) for word in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
