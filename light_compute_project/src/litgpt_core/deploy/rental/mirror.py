"""The far run folder, copied here while the run goes on: rows and records at every look, checkpoints now and then.

What comes from a rented machine is not trusted: only regular files with plain names are taken out of its archives, into
fresh folders, and a checkpoint is put in place only when every hash of its `checksums.json` fits. So a checkpoint that
was incomplete when it was copied costs one look, and the one before it stays.
"""

from __future__ import annotations

import functools
import re
import shlex
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from litgpt_core.checkpoint.retention import BEST, LAST, link, step_of
from litgpt_core.checkpoint.verification import verify
from litgpt_core.core.directories import new_directory
from litgpt_core.core.errors import LightComputeError
from litgpt_core.core.files import write_atomically
from litgpt_core.core.replaceable import CHECKSUMS
from litgpt_core.core.text import visible
from litgpt_core.deploy.rental.remote import RemoteProblem, RemoteShell

MAX_SMALL_BYTES = 200_000_000
"""Of the run folder without checkpoints."""
MAX_FILES = 20_000
SMALL_TIMEOUT_S, LARGE_TIMEOUT_S = 120.0, 3600.0
_SKIPPED = ("checkpoints", "final", "lora", "wandb")


@dataclass(frozen=True, kw_only=True)
class FarState:
    """What the machine says of itself."""

    word: str = ""
    """`setup`, `training`, `ended`, `failed`; empty: nothing yet."""
    code: int = 0
    """Exit code of set-up or training, of the last two."""


@dataclass(frozen=True)
class Mirror:
    """A run here and its original there.

    Args:
        folder: The run folder here.
        far: The run folder there, relative to the parcel.
        logs: Folder here for what set-up and training wrote to their outputs.
    """

    folder: Path
    far: str
    logs: Path

    def state(self, shell: RemoteShell) -> FarState:
        """Raises RemoteProblem if the machine does not answer."""
        said = shell.run("cat state 2>/dev/null || true", timeout_s=SMALL_TIMEOUT_S).decode("utf-8", "replace").split()
        known = said and said[0] in ("setup", "training", "ended", "failed")
        code = int(said[1]) if len(said) > 1 and re.fullmatch(r"\d{1,3}", said[1]) else 0
        return FarState(word=said[0] if known else "", code=code)

    def pull_small(self, shell: RemoteShell) -> int:
        """Copy everything of the run but weights, and the outputs of set-up and training.

        Returns:
            Files that were written.

        Raises:
            RemoteProblem: The machine does not answer, or sends what no run folder holds.
        """
        for name in ("setup.log", "train.log"):
            text = shell.run(f"tail -c 1000000 {name} 2>/dev/null || true", timeout_s=SMALL_TIMEOUT_S)
            if text:
                write_atomically(self.logs / name, text)
        skipped = " ".join(f"--exclude=./{name}" for name in _SKIPPED)
        script = f"if [ -d {self._far} ]; then cd {self._far}; {_tar(f'{skipped} .')}; fi"
        return self._receive(shell, script, self._take_small, timeout_s=SMALL_TIMEOUT_S)

    def last_lines(self, name: str, *, count: int = 15) -> list[str]:
        """The end of `setup.log` or `train.log`, as far as it is here, with control characters made visible."""
        try:
            text = (self.logs / name).read_text(encoding="utf-8", errors="replace")
        except OSError:
            return []
        return [visible(line)[:500] for line in text.rstrip().splitlines()[-count:]]

    def pull_checkpoints(self, shell: RemoteShell) -> list[str]:
        """Copy the newest checkpoint and the best one, where they are not here yet.

        One command chooses and copies: between two, a run that saves often would have deleted what was chosen. Rows and
        records are copied again before checkpoints are put in place: a run that went on from one would otherwise lack
        the rows that were written before it, but after they had been copied.

        Returns:
            Names of those that are new here.

        Raises:
            RemoteProblem: The machine does not answer, or a copy is not complete: the next look takes it again.
        """
        here = self.folder / "checkpoints"
        have = [path.name for path in here.glob("step-*")] if here.is_dir() else []
        new: list[str] = []

        def take(archive: IO[bytes]) -> int:
            names, best = _checkpoints_in(archive)
            if names:
                self.pull_small(shell)
            count = 0
            for name in names:
                archive.seek(0)
                count += self._put_in_place(archive, f"checkpoints/{name}", below=name)
                new.append(name)
            newest = max([*have, *new], key=lambda name: step_of(Path(name)) or 0)
            link(here / newest, LAST)
            if best in [*have, *new]:
                link(here / best, BEST)
            return count

        self._receive(shell, _CHOOSE.format(far=self._far, have=" ".join(have)), take, timeout_s=LARGE_TIMEOUT_S)
        return new

    def pull_final(self, shell: RemoteShell) -> bool:
        """Copy the finished model; whether there is one. Raises as `pull_checkpoints`."""
        listed = shell.run(f"ls {self._far}/final/checksums.json 2>/dev/null || true", timeout_s=SMALL_TIMEOUT_S)
        if not listed.strip():
            return False
        self._pull_directory(shell, "final")
        return True

    @property
    def _far(self) -> str:
        return shlex.quote(self.far)

    def _pull_directory(self, shell: RemoteShell, name: str) -> None:
        """Copy one directory with checksums, and put it in place once all of them fit."""
        script = f"cd {self._far} && {_tar(shlex.quote(name))}"
        take = functools.partial(self._put_in_place, name=name, below=name)
        self._receive(shell, script, take, timeout_s=LARGE_TIMEOUT_S)

    def _put_in_place(self, archive: IO[bytes], name: str, *, below: str) -> int:
        """One directory of an archive, once all its checksums fit."""
        with new_directory(self.folder / name) as work:
            count = unpack(archive, work, below=below)
            if not (work / CHECKSUMS).is_file():
                raise RemoteProblem(f"{name} came without {CHECKSUMS}")
            try:
                verify(work)
            except LightComputeError as problem:
                raise RemoteProblem(f"{name} was not complete when it was copied: {problem.given}") from None
        return count

    def _take_small(self, archive: IO[bytes]) -> int:
        with tempfile.TemporaryDirectory() as place:
            count = unpack(archive, Path(place), max_bytes=MAX_SMALL_BYTES)
            for file in sorted(Path(place).rglob("*")):
                if file.is_file():
                    write_atomically(self.folder / file.relative_to(place), file.read_bytes())
        return count

    def _receive(self, shell: RemoteShell, script: str, take: Callable[[IO[bytes]], int], *, timeout_s: float) -> int:
        with tempfile.TemporaryFile() as archive:
            shell.run(script, to=archive, timeout_s=timeout_s)
            if archive.seek(0, 2) == 0:
                return 0
            archive.seek(0)
            return take(archive)


_CHOOSE = """\
cd {far}/checkpoints 2>/dev/null || exit 0
new=$(ls -d step-* 2>/dev/null | sort | tail -n 1)
[ -n "$new" ] || exit 0
best=$(readlink best 2>/dev/null || true)
if [ "$best" = "$new" ]; then other=; else other=$best; fi
set --
for each in "$new" $other; do case " {have} " in *" $each "*) ;; *) set -- "$@" "$each" ;; esac; done
if [ -n "$best" ]; then set -- "$@" best; fi
if [ $# -gt 0 ]; then tar cf - "$@"; code=$?; [ $code -le 1 ]; fi"""
"""Sends the newest checkpoint and the best one, but those that are here, and the link that says which is the best."""


def _checkpoints_in(archive: IO[bytes]) -> tuple[list[str], str]:
    """Names of the checkpoints in an archive, and what its link `best` points to, or an empty string."""
    names: set[str] = set()
    best = ""
    try:
        with tarfile.open(fileobj=archive, mode="r:") as tar:
            for member in tar:
                first = PurePosixPath(member.name).parts[:1]
                if first and step_of(Path(first[0])) is not None:
                    names.add(first[0])
                elif member.issym() and member.name == BEST and step_of(Path(member.linkname)) is not None:
                    best = member.linkname
    except (tarfile.TarError, EOFError) as problem:
        raise RemoteProblem(f"what the machine sent is damaged: {problem}") from None
    return sorted(names), best


def _tar(arguments: str) -> str:
    """`tar` to standard output; 1 is "a file changed while it was read", which rows do."""
    return f"tar cf - {arguments}; code=$?; [ $code -le 1 ]"


def unpack(archive: IO[bytes], folder: Path, *, below: str = "", max_bytes: int | None = None) -> int:
    """Write the regular files of a tar archive into a fresh folder; links and devices are skipped, odd names refused.

    Args:
        archive: At its beginning.
        folder: Empty.
        below: Only what lies below this path, which is left out of the names.
        max_bytes: Of all files together.

    Returns:
        Files that were written.

    Raises:
        RemoteProblem: It is damaged, too large, or holds a name that leads out of the folder.
    """
    count, total = 0, 0
    try:
        with tarfile.open(fileobj=archive, mode="r:") as tar:
            for member in tar:
                if not member.isreg():
                    continue
                path = PurePosixPath(member.name)
                if path.is_absolute() or ".." in path.parts or "\\" in member.name or "\0" in member.name:
                    raise RemoteProblem(f"the machine sent a file named {member.name!r}")
                if below and not path.is_relative_to(below):
                    continue
                count, total = count + 1, total + member.size
                if count > MAX_FILES or (max_bytes is not None and total > max_bytes):
                    raise RemoteProblem(f"the machine sent more than {MAX_FILES:,} files or {max_bytes or 0:,} bytes")
                target = folder / (path.relative_to(below) if below else path)
                target.parent.mkdir(parents=True, exist_ok=True)
                content = tar.extractfile(member)
                assert content is not None
                with target.open("xb") as file:
                    while block := content.read(1 << 20):
                        file.write(block)
    except (tarfile.TarError, EOFError) as problem:
        raise RemoteProblem(f"what the machine sent is damaged: {problem}") from None
    return count
