"""Checks whether a repository can be synced now, and reads the record of the last sync. Changes nothing."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from litgpt_core.core.errors import EnvironmentProblem
from litgpt_core.upstream.git import OLDEST_GIT, Git
from litgpt_core.upstream.manifest import parse_manifest
from litgpt_core.upstream.placement import ASIDE, MANIFEST, OURS, RECORD, Synced, parents, parse_record
from litgpt_core.upstream.refusal import SyncRefused, listed

_IN_PROGRESS = {
    "MERGE_HEAD": ("merge", "git merge --continue, or git merge --abort"),
    "rebase-merge": ("rebase", "git rebase --continue, or git rebase --abort"),
    "rebase-apply": ("rebase or git am", "git rebase --abort, or git am --abort"),
    "CHERRY_PICK_HEAD": ("cherry-pick", "git cherry-pick --continue, or git cherry-pick --abort"),
    "REVERT_HEAD": ("revert", "git revert --continue, or git revert --abort"),
    "sequencer": ("series of cherry-picks or reverts", "git cherry-pick --abort, or git revert --abort"),
    "BISECT_LOG": ("bisect", "git bisect reset"),
}


def open_repository(root: Path) -> Git:
    """git in the work tree whose top is `root`.

    Raises:
        SyncRefused: `root` is not the top of a work tree with our folder in it.
        EnvironmentProblem: No git, or one that is too old.
    """
    git = Git(root=root)
    said = git.text("version")
    found = re.search(r"(\d+)\.(\d+)", said)
    if found is None or (int(found[1]), int(found[2])) < OLDEST_GIT:
        raise EnvironmentProblem(f"{said} is too old.", needed=f"git {'.'.join(map(str, OLDEST_GIT))} or newer")
    top = git.maybe("rev-parse", "--show-toplevel")
    if top is None or Path(top).resolve() != root.resolve() or not (root / OURS).is_dir():
        raise SyncRefused(
            f"{root} is not the top folder of a git checkout of this project" + (f" ({top} is)." if top else "."),
            needed=f"a clone with {OURS}/ at its top",
            fix="git clone YOUR_FORK, then run the script in it",
        )
    if git.maybe("rev-parse", "--show-object-format") not in (None, "sha1"):
        raise SyncRefused("This repository does not use sha1 object ids, and LitGPT's does: git cannot join them.")
    return git


def refuse_unless_ready(git: Git, *, clean: bool = True) -> str:
    """The branch that is checked out.

    Args:
        git: The repository.
        clean: Whether tracked files must be as they were committed.

    Raises:
        SyncRefused: No branch, no commit, an operation in progress, or changed tracked files.
    """
    for name, (operation, end) in _IN_PROGRESS.items():
        if git.path(name).exists():
            raise SyncRefused(f"A {operation} is in progress here.", needed="no operation in progress", fix=end)
    branch = git.maybe("symbolic-ref", "--quiet", "--short", "HEAD")
    if branch is None:
        raise SyncRefused("No branch is checked out (detached HEAD).", needed="a branch", fix="git switch main")
    if git.maybe("rev-parse", "--verify", "--quiet", "HEAD") is None:
        raise SyncRefused(f"The branch {branch} has no commit yet.", needed="a commit", fix="git commit")
    if git.path("index.lock").exists():
        raise SyncRefused(
            "Another git process is running here (index.lock exists).",
            needed="no other git process",
            fix=f"if none is running: remove {git.path('index.lock')}",
        )
    hidden = [line[2:] for line in git.fields("ls-files", "-v", "-z") if line[0] != "H" and line[0] != "M"]
    if hidden:
        raise SyncRefused(
            f"git ignores changes in these files, so a change in them would be lost:{listed(hidden)}",
            needed="a full checkout, without skip-worktree and assume-unchanged",
            fix="git sparse-checkout disable, or git update-index --no-skip-worktree --no-assume-unchanged FILE",
        )
    changed = changed_files(git) if clean else []
    if changed:
        raise SyncRefused(
            f"Tracked files differ from HEAD:{listed(changed)}",
            needed="a clean work tree",
            fix="git commit -a, or git stash",
        )
    return branch


def changed_files(git: Git) -> list[str]:
    """Tracked files that differ from HEAD in the index or in the work tree."""
    rows = iter(git.fields("status", "--porcelain=v1", "-z", "--untracked-files=no", "--ignore-submodules=none"))
    found = []
    for row in rows:
        found.append(row[3:])
        if row[0] in "RC" or row[1] in "RC":
            next(rows, None)  # the name before the rename
    return found


def last_sync(git: Git) -> Synced | None:
    """The record in HEAD, or None if there was no sync. Raises SyncRefused if it is corrupted."""
    names = git.fields("ls-tree", "-r", "-z", "--name-only", "--full-tree", "HEAD", f"{ASIDE}/")
    if RECORD not in names:
        return None
    if MANIFEST not in names:
        raise SyncRefused(
            f"{RECORD} exists and {MANIFEST} does not.", needed="both files", fix=f"git log --oneline -- {ASIDE}"
        )
    record, text = git.run("cat-file", "blob", f"HEAD:{RECORD}"), git.run("cat-file", "blob", f"HEAD:{MANIFEST}")
    manifest = parse_manifest(text.decode("utf-8", "replace"), source=MANIFEST)
    return parse_record(record.decode("utf-8", "replace"), manifest=manifest)


def record_commit(git: Git) -> str | None:
    """The newest commit in HEAD's history that wrote the record, or None."""
    return git.maybe("log", "-1", "--format=%H", "HEAD", "--", RECORD) or None


def sync_commit(git: Git, synced: Synced) -> str | None:
    """The newest merge commit of `synced` in HEAD's history; None after a squash or in a shallow clone."""
    for line in git.text("log", "--full-history", "--format=%H %P", "HEAD", "--", RECORD).splitlines():
        commit, *parents_of_it = line.split()
        if parents_of_it[1:] == [synced.manifest.commit]:
            return commit
    return None


def refuse_if_in_the_way(git: Git, new: Iterable[str], *, have: Iterable[str]) -> None:
    """Raise SyncRefused if an untracked file, ignored or not, exists at a path to be written.

    Args:
        git: The repository, without changes in tracked files.
        new: Paths that will be tracked.
        have: Paths that HEAD tracks.
    """
    tracked = set(have)
    blocking = sorted({name for path in new if path not in tracked for name in _in_the_way(git, path, tracked)})
    if blocking:
        raise SyncRefused(
            f"Untracked files are in the way:{listed(blocking)}",
            needed="no untracked files at these paths; ignored files would be overwritten too",
            fix="move them away or delete them, then try again",
        )


def _in_the_way(git: Git, path: str, tracked: set[str]) -> Iterator[str]:
    for parent in parents(path):
        place = git.root / parent
        if parent not in tracked and (place.is_symlink() or (os.path.lexists(place) and not place.is_dir())):
            yield parent
            return
    place = git.root / path
    if place.is_dir() and not place.is_symlink():  # upstream replaced a folder by a file: find untracked files in it
        for folder, _, names in os.walk(place):
            inside = Path(folder).relative_to(git.root).as_posix()
            yield from (f"{inside}/{name}" for name in names if f"{inside}/{name}" not in tracked)
    elif os.path.lexists(place):
        yield path
