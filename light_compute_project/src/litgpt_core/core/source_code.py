"""The code that computes: commit, what differs from it as a patch, and a hash of every file of the package.

The patch holds tracked changes and untracked source files below `src/`, `scripts/` and `configs/`, so that a run on
uncommitted code can be repeated. What looks like a key or a password is blacked out before anything is kept.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from litgpt_core.core.checkout import PACKAGE_DIR, PROJECT_DIR, working_folder
from litgpt_core.core.redaction import redact

SOURCE_SUFFIXES = (".py", ".yaml", ".yml", ".toml", ".cpp", ".hpp", ".h", ".cu", ".txt", ".sh", ".js", ".css", ".html")
"""Untracked files with these endings belong to the patch, if they are no larger than `MAX_UNTRACKED_BYTES`."""

MAX_UNTRACKED_BYTES = 500_000
_PARTS = ("src", "scripts", "configs")


@dataclass(frozen=True, kw_only=True)
class CodeState:
    """Which code this is."""

    facts: dict[str, Any]
    """`diff_sha256` (null without changes, or outside a checkout), `changed` and `untracked` paths, `blacked_out`
    places of the patch, `package_sha256` and `package_files`: path below `litgpt_core` -> first 12 digits of its hash.
    """
    diff: str
    """The patch, for `git apply` on top of the commit; empty where nothing differs."""


def git_state(folder: Path | None = None) -> dict[str, Any]:
    """Commit, branch and whether tracked files differ from it; an empty dict outside a git checkout or without git.

    Args:
        folder: Where git is asked; None: in this checkout, or for an installed package in the current folder.
    """
    place = working_folder() if folder is None else folder

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(place), *arguments], capture_output=True, text=True, timeout=20, check=True
        )
        return done.stdout.strip()

    try:
        return {
            "commit": git("rev-parse", "HEAD"),
            "branch": git("rev-parse", "--abbrev-ref", "HEAD"),
            "dirty": bool(git("status", "--porcelain", "--untracked-files=no")),
        }
    except (OSError, subprocess.SubprocessError):
        return {}


def code_state(folder: Path = PROJECT_DIR) -> CodeState:
    """The code in `folder`, a `light_compute_project` folder, and of the package that is running.

    Args:
        folder: Where git is asked; anything but a project folder in a checkout gives no patch.
    """
    files = package_files()
    facts: dict[str, Any] = {"diff_sha256": None, "changed": [], "untracked": [], "blacked_out": 0}
    diff = ""
    if all((folder / part).is_dir() for part in _PARTS):
        with contextlib.suppress(OSError, subprocess.SubprocessError):  # no git, or no checkout
            changed, untracked, raw = _patch(folder)
            diff, facts["blacked_out"] = redact(raw)
            facts |= {"changed": list(map(_readable, changed)), "untracked": list(map(_readable, untracked))}
            facts["diff_sha256"] = hashlib.sha256(encode(diff)).hexdigest() if diff else None
    digest = hashlib.sha256("\n".join(f"{name} {value}" for name, value in files.items()).encode()).hexdigest()
    return CodeState(facts={**facts, "package_sha256": digest, "package_files": files}, diff=diff)


def package_files(folder: Path = PACKAGE_DIR) -> dict[str, str]:
    """Source files of the package, each with the first 12 hex digits of its SHA-256."""
    found = (path for path in folder.rglob("*") if path.suffix in (".py", ".cpp", ".hpp"))
    names = sorted((path.relative_to(folder).as_posix(), path) for path in found)
    return {name: hashlib.sha256(path.read_bytes()).hexdigest()[:12] for name, path in names}


def _patch(folder: Path) -> tuple[list[str], list[str], str]:
    """Changed paths, untracked source paths, and both as one patch."""
    top = Path(_git(folder, "rev-parse", "--show-toplevel").rstrip("\n"))
    inside = folder.resolve().relative_to(top.resolve()).as_posix()
    paths = [*(f"{inside}/{part}" for part in _PARTS), "pyproject.toml"]
    changed = _git(top, "diff", "--name-only", "-z", "HEAD", "--", *paths).split("\0")
    others = _git(top, "ls-files", "--others", "--exclude-standard", "-z", "--", *paths).split("\0")
    untracked = [name for name in others if name and _is_source(top / name)]
    how = ("diff", "--no-ext-diff", "--no-textconv", "--no-renames", "--full-index", "HEAD", "--", *paths)
    if not untracked:
        text = _git(top, *how) if any(changed) else ""
    else:
        with tempfile.TemporaryDirectory() as place:  # an index of its own: the person's stays as it is
            index = Path(place) / "index"
            own = top / _git(top, "rev-parse", "--git-path", "index").rstrip("\n")
            if own.is_file():
                shutil.copyfile(own, index)
            listed = "\0".join(untracked)
            add = ("add", "--intent-to-add", "--pathspec-from-file=-", "--pathspec-file-nul")
            _git(top, *add, index=index, stdin=listed)
            text = _git(top, *how, index=index)
    return [name for name in changed if name], untracked, text


def encode(text: str) -> bytes:
    """git's output as the bytes it was: what is not UTF-8 is held as surrogates."""
    return text.encode("utf-8", "surrogateescape")


def _readable(name: str) -> str:
    return encode(name).decode("utf-8", "replace")


def _is_source(path: Path) -> bool:
    return path.suffix in SOURCE_SUFFIXES and not path.is_symlink() and path.stat().st_size <= MAX_UNTRACKED_BYTES


def _git(folder: Path, *arguments: str, index: Path | None = None, stdin: str = "") -> str:
    """Output of one git command, which neither asks nor writes into the repository.

    Raises:
        OSError: There is no git.
        subprocess.SubprocessError: It failed.
    """
    kept = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    kept |= {"GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    if index is not None:
        kept["GIT_INDEX_FILE"] = str(index)
    settings = ("-c", "core.quotePath=false", "-c", "color.ui=false", "-c", "core.fsmonitor=false")
    done = subprocess.run(
        ["git", "-C", str(folder), *settings, *arguments],
        input=encode(stdin),
        capture_output=True,
        env=kept,
        timeout=20,
        check=True,
    )
    return done.stdout.decode("utf-8", "surrogateescape")
