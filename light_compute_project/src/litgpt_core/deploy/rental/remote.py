"""Shell commands on a machine: over SSH, or here. Output as bytes, in memory or to a file; input as bytes."""

from __future__ import annotations

import shlex
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from litgpt_core.core.errors import LightComputeError


class RemoteProblem(LightComputeError):
    """A command on the machine failed, or the machine could not be reached."""


class RemoteShell(ABC):
    """Runs `sh` scripts on one machine."""

    @abstractmethod
    def command(self, script: str) -> list[str]:
        """The local command line that runs `script` there."""

    def run(
        self, script: str, *, given: bytes | IO[bytes] = b"", to: IO[bytes] | None = None, timeout_s: float
    ) -> bytes:
        """Run a script there.

        Args:
            script: For `sh`.
            given: Its standard input.
            to: Where its output goes; None: it is returned.
            timeout_s: After which it counts as failed.

        Raises:
            RemoteProblem: It failed or took too long; with the end of its error output.
        """
        try:
            done: subprocess.CompletedProcess[bytes] = subprocess.run(
                self.command(script),
                input=given if isinstance(given, bytes) else None,
                stdin=None if isinstance(given, bytes) else given,
                stdout=subprocess.PIPE if to is None else to,
                stderr=subprocess.PIPE,
                timeout=timeout_s,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as problem:
            raise RemoteProblem(f"the machine did not answer: {problem}") from None
        if done.returncode:
            said = done.stderr.decode("utf-8", "replace").strip()[-2000:]
            raise RemoteProblem(f"a command on the machine failed with {done.returncode}: {said or 'no output'}")
        return done.stdout or b""


class LocalShell(RemoteShell):
    """Commands on this machine, in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def command(self, script: str) -> list[str]:
        """As `RemoteShell.command`."""
        return ["/bin/sh", "-c", f"cd {shlex.quote(str(self.folder))} && {script}"]


class SshShell(RemoteShell):
    """Commands over SSH.

    Args:
        target: `USER@HOST`, or a name of the configuration file.
        folder: On the machine; commands run in it. Made if absent.
        port: None: the configuration's.
        key: File of a private key; empty: what ssh uses by itself.
        known_hosts: File for the host keys of rented machines, which are new each time.
        config: Configuration file; None: the user's.
        program: The SSH client.
        preferred: Shell text of a folder that is entered instead, where it exists.
    """

    def __init__(
        self,
        target: str,
        *,
        folder: str,
        known_hosts: Path | None = None,
        port: int | None = None,
        key: str = "",
        config: Path | None = None,
        program: Sequence[str] = ("ssh",),
        preferred: str = "",
    ) -> None:
        self.target = target
        quoted = folder if folder.startswith("~/") else shlex.quote(folder)
        self._enter = f"mkdir -p {quoted} && cd {quoted}"
        if preferred:
            self._enter = f"{{ cd {preferred} 2>/dev/null || {{ {self._enter}; }}; }}"
        options = ["-o", "BatchMode=yes", "-o", "ConnectTimeout=20", "-o", "ServerAliveInterval=15"]
        if known_hosts is not None:
            options += ["-o", "StrictHostKeyChecking=accept-new", "-o", f"UserKnownHostsFile={known_hosts}"]
        options += ["-F", str(config)] if config is not None else []
        options += ["-i", key] if key else []
        options += ["-p", str(port)] if port is not None else []
        self._start = [*program, *options]

    def command(self, script: str) -> list[str]:
        """As `RemoteShell.command`."""
        return [*self._start, "--", self.target, f"{self._enter} && {script}"]
