"""Runs git without a shell and without prompts, independent of the caller's environment and configuration.

Environment variables that point git to another repository or index are removed. Settings for the connection to a server
(proxies, ssh commands, credentials, certificates) and the commit identity are kept. Hooks, automatic maintenance,
signatures and replaced objects are disabled, so that they cannot change the result.
"""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from litgpt_core.core.errors import EnvironmentProblem
from litgpt_core.upstream.refusal import SyncRefused

OLDEST_GIT = (2, 30)
"""The first version with `fetch --no-write-fetch-head` and the other options used here."""

_KEPT_VARIABLES = (
    *("GIT_AUTHOR_", "GIT_COMMITTER_", "GIT_CONFIG_", "GIT_SSH", "GIT_SSL_", "GIT_ASKPASS", "GIT_PROXY"),
    *("GIT_EXEC_PATH", "GIT_HTTP_"),
)
_SETTINGS = (
    *("core.quotePath=false", f"core.hooksPath={os.devnull}", "core.fsmonitor=false", "color.ui=false"),
    *("gc.auto=0", "maintenance.auto=false", "log.showSignature=false", "fetch.recurseSubmodules=false"),
    *("http.lowSpeedLimit=1000", "http.lowSpeedTime=60", "diff.renames=false", "merge.verifySignatures=false"),
    "fetch.fsckObjects=true",  # refuses objects that are made to harm who checks them out
)


@dataclass(frozen=True, kw_only=True)
class Git:
    """git in one work tree."""

    root: Path
    """Top folder of the work tree."""
    index: Path | None = None
    """An index file in place of the repository's own."""
    identity: tuple[str, str] | None = None
    """Name and address of author and committer in place of the configured ones."""

    def run(self, *arguments: str, stdin: bytes = b"", timeout: float = 600) -> bytes:
        """Output of one command.

        Args:
            arguments: Arguments of git; paths and refs as text, bytes that are not UTF-8 as surrogates.
            stdin: Its input.
            timeout: Seconds.

        Raises:
            SyncRefused: git failed; the message contains git's output.
            EnvironmentProblem: git is not installed.
        """
        done = self._start(arguments, stdin=stdin, timeout=timeout)
        if done.returncode:
            said = done.stderr.decode("utf-8", "replace").strip() or f"exit code {done.returncode}"
            raise SyncRefused(f"git {arguments[0]} failed: {said}")
        return done.stdout

    def text(self, *arguments: str) -> str:
        """Output of one command as text, without the end of its last line."""
        return decode(self.run(*arguments)).rstrip("\n")

    def fields(self, *arguments: str) -> list[str]:
        """Output of one command with the option `-z`, split."""
        return [part for part in decode(self.run(*arguments)).split("\0") if part]

    def succeeds(self, *arguments: str) -> bool:
        """True if the command ends with exit code 0."""
        return self._start(arguments, stdin=b"", timeout=600).returncode == 0

    def maybe(self, *arguments: str) -> str | None:
        """Output of one command as text, or None if it fails."""
        done = self._start(arguments, stdin=b"", timeout=600)
        return None if done.returncode else decode(done.stdout).rstrip("\n")

    def path(self, name: str) -> Path:
        """Path of `name` in git's folder, also in a linked work tree."""
        return self.root / self.text("rev-parse", "--git-path", name)

    def _start(self, arguments: tuple[str, ...], *, stdin: bytes, timeout: float) -> subprocess.CompletedProcess[bytes]:
        command = ["git", "-C", str(self.root)]
        for setting in _SETTINGS:
            command += ["-c", setting]
        given = [argument.encode("utf-8", "surrogateescape") for argument in arguments]
        try:
            return subprocess.run(
                [*(os.fsencode(part) for part in command), *given] if os.name != "nt" else [*command, *arguments],
                input=stdin,
                capture_output=True,
                env=self._environment(),
                timeout=timeout,
                check=False,
            )
        except FileNotFoundError as error:
            raise EnvironmentProblem("git is not installed.", needed="git", fix="install git, then again") from error
        except subprocess.TimeoutExpired as error:
            raise SyncRefused(f"git {arguments[0]} did not end within {timeout:.0f} s.") from error

    def _environment(self) -> dict[str, str]:
        """This process's environment, without variables that redirect git or make it prompt."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith("GIT_") or k.startswith(_KEPT_VARIABLES)}
        kept |= {
            "GIT_OPTIONAL_LOCKS": "0",  # a query such as `status` must not rewrite the index
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_NO_REPLACE_OBJECTS": "1",
            "GIT_PAGER": "cat",
            "LC_ALL": "C",
        }
        if self.index:
            kept["GIT_INDEX_FILE"] = str(self.index)
        if self.identity:
            for role in ("AUTHOR", "COMMITTER"):
                kept[f"GIT_{role}_NAME"], kept[f"GIT_{role}_EMAIL"] = self.identity
        return kept


def decode(output: bytes) -> str:
    """git's output as text; paths that are not UTF-8 survive as surrogates."""
    return output.decode("utf-8", "surrogateescape")


def encode(text: str) -> bytes:
    """The inverse of `decode`."""
    return text.encode("utf-8", "surrogateescape")
