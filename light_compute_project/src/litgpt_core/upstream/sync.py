"""Brings one version of LitGPT's tree in as a merge commit whose tree is built, not three-way merged.

Every path of the new tree is either ours, as HEAD has it, or upstream's, as its commit has it; that is proved on the
tree object before a commit is made. The commit has two parents, HEAD and upstream's commit, so `git log`, `git blame`
and later plain merges see upstream's history. Up to the last step only objects are added, which nothing refers to; the
last step is a fast-forward. Any refusal before leaves HEAD, refs, index and work tree as they were.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from litgpt_core.upstream.git import Git, encode
from litgpt_core.upstream.manifest import Entry, entries_of_tree, manifest_of_commit
from litgpt_core.upstream.placement import (
    ASIDE,
    Synced,
    case_twins,
    clashes,
    foreign_changes,
    parents,
    refuse_clashes,
)
from litgpt_core.upstream.refusal import SyncRefused, listed
from litgpt_core.upstream.remote import RemoteRef, fetch, look_up, refuse_if_moved
from litgpt_core.upstream.state import (
    last_sync,
    open_repository,
    record_commit,
    refuse_if_in_the_way,
    refuse_unless_ready,
    sync_commit,
)

logger = logging.getLogger(__name__)

FALLBACK_IDENTITY = ("light-compute sync", "sync@light-compute.invalid")
"""Author of the merge commit where git knows no name and address."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a sync would do."""

    ref: RemoteRef
    old: Synced | None
    """What lies here now, if anything."""
    new: Synced
    head: dict[str, Entry]
    """Every file of HEAD."""

    @cached_property
    def brought(self) -> dict[str, Entry]:
        """Files that the sync places, the record included."""
        return self.new.entries()

    @cached_property
    def ours(self) -> dict[str, Entry]:
        """Files of HEAD that no sync placed."""
        before = self.old.entries() if self.old else {}
        return {path: entry for path, entry in self.head.items() if path not in before}

    @property
    def nothing_to_do(self) -> bool:
        """True if HEAD holds exactly this already."""
        return self.old == self.new


@dataclass(frozen=True, kw_only=True)
class Done:
    """What a sync did."""

    plan: Plan
    commit: str
    """The merge commit, or HEAD where there was nothing to do."""
    before: str
    """HEAD before."""
    notes: tuple[str, ...] = ()


def make_plan(git: Git, name: str, *, url: str, with_ci: bool) -> Plan:
    """Look the ref up, fetch its objects and read both trees; nothing that shows is changed.

    Raises:
        SyncRefused: The remote or the ref cannot be had, a tag moved, or the record of the last sync is damaged.
    """
    old = last_sync(git)
    ref = look_up(git, name, url=url)
    refuse_if_moved(git, ref)
    fetch(git, ref, url=url)
    new = Synced(manifest=manifest_of_commit(git, ref.commit, ref=name), with_ci=with_ci)
    return Plan(ref=ref, old=old, new=new, head=entries_of_tree(git, "HEAD"))


def refuse_plan(git: Git, plan: Plan) -> None:
    """Raise SyncRefused if carrying the plan out would change a file of ours, lose an edit or overwrite a file."""
    if changed := foreign_changes(plan.head, synced=plan.old):
        source = record_commit(git)
        raise SyncRefused(
            f"Files of LitGPT's were changed in this repository:{listed(changed)}",
            needed="upstream's files as they are; a change of yours belongs into a file of yours",
            fix=f"git restore --source={source[:12] if source else 'COMMIT_OF_THE_SYNC'} -- PATH, commit, then again",
        )
    problems = clashes(plan.brought, ours=plan.ours)
    if git.maybe("config", "--bool", "core.ignorecase") == "true":
        problems += case_twins(plan.brought)
    refuse_clashes(problems, ref=plan.ref.name)
    refuse_if_in_the_way(git, plan.brought, have=plan.head)


def sync(root: Path, name: str, *, url: str, with_ci: bool = False) -> Done:
    """Bring LitGPT's tree at `name` in.

    Args:
        root: Top folder of the checkout.
        name: Tag or branch of upstream's.
        url: Upstream's repository.
        with_ci: Also `.github/` and `.lightning/`.

    Raises:
        SyncRefused: Something stands against it; then nothing was changed.
    """
    git = open_repository(root)
    refuse_unless_ready(git)
    before = git.text("rev-parse", "HEAD")
    plan = make_plan(git, name, url=url, with_ci=with_ci)
    refuse_plan(git, plan)
    if plan.nothing_to_do:
        return Done(plan=plan, commit=before, before=before)
    tree = build_tree(git, plan)
    git, note = _with_identity(git)
    commit = _commit(git, tree, plan=plan, before=before)
    _fast_forward(git, commit, plan=plan)
    git.run("update-ref", plan.ref.local, plan.ref.commit)
    return Done(plan=plan, commit=commit, before=before, notes=(note,) if note else ())


def build_tree(git: Git, plan: Plan) -> str:
    """Write the new tree through an index of its own and prove it: the id of the tree object."""
    wanted = plan.ours | plan.brought
    for content in plan.new.record().values():
        git.run("hash-object", "-w", "--stdin", "--no-filters", stdin=content)
    lines = b"".join(encode(f"{e.mode} {e.blob}\t{path}\0") for path, e in wanted.items())
    with tempfile.TemporaryDirectory(prefix="light-compute-sync-") as folder:
        apart = dataclasses.replace(git, index=Path(folder) / "index")
        apart.run("update-index", "-z", "--add", "--index-info", stdin=lines)
        tree = apart.text("write-tree")
    _prove(entries_of_tree(git, tree), plan=plan)
    return tree


def _prove(tree: Mapping[str, Entry], *, plan: Plan) -> None:
    """Every entry is ours or upstream's, unchanged, and none is missing."""
    assert set(tree) == set(plan.ours) | set(plan.brought), "the new tree holds other paths than ours and upstream's"
    for path, entry in tree.items():
        assert entry == (plan.brought.get(path) or plan.ours[path]), f"the new tree holds other bytes at {path}"


def _with_identity(git: Git) -> tuple[Git, str]:
    """git with an author, and a remark if none was configured."""
    if git.succeeds("-c", "user.useConfigOnly=true", "var", "GIT_COMMITTER_IDENT"):
        return git, ""
    name, address = FALLBACK_IDENTITY
    note = (
        f"git knows no name of yours, so the merge commit is signed {name} <{address}>. To change that:\n"
        '  git config user.name "YOUR NAME" && git config user.email YOU@EXAMPLE\n'
        "  git commit --amend --reset-author --no-edit"
    )
    return dataclasses.replace(git, identity=FALLBACK_IDENTITY), note


def _commit(git: Git, tree: str, *, plan: Plan, before: str) -> str:
    m = plan.new.manifest
    text = (
        f"Bring in LitGPT {m.ref}\n\n"
        f"Upstream's commit {m.commit}, tree {m.tree}.\n"
        f"Every path is ours as the first parent has it, or upstream's as the second has it ({ASIDE}/SYNCED).\n"
    )
    arguments = ("commit-tree", "--no-gpg-sign", "-p", before, "-p", m.commit, "-F", "-", tree)
    return git.run(*arguments, stdin=text.encode()).decode().strip()


def _fast_forward(git: Git, commit: str, *, plan: Plan) -> None:
    options = ("--ff-only", "--no-overwrite-ignore", "--no-autostash", "--no-verify-signatures", "--no-stat", "--quiet")
    try:
        git.run("merge", *options, commit)
    except SyncRefused as error:
        if git.text("rev-parse", "HEAD") == commit:
            raise
        _take_back(git, plan=plan)
        raise SyncRefused(
            f"The files could not be written, and what was written was taken back. {error.given}",
            needed="room on the disk and the right to write here",
            fix="git status, then the same command again",
        ) from error


def _take_back(git: Git, *, plan: Plan) -> None:
    """After a fast-forward that failed half way: tracked files as HEAD has them, new ones gone.

    Safe because tracked files were clean and nothing lay on the new paths when it began.
    """
    for path in plan.brought:
        if path not in plan.head:
            with contextlib.suppress(OSError):
                (git.root / path).unlink()
            for parent in reversed(parents(path)):
                with contextlib.suppress(OSError):
                    (git.root / parent).rmdir()
    git.run("read-tree", "--reset", "-u", "HEAD")


def undo(root: Path) -> tuple[str, str]:
    """Take the last sync back if HEAD is its merge commit: `(ref that was undone, HEAD now)`.

    Changes in files of ours that are not committed stay.

    Raises:
        SyncRefused: HEAD is no merge commit of a sync, was published, or a local change stands against it.
    """
    git = open_repository(root)
    refuse_unless_ready(git, clean=False)
    head, synced = git.text("rev-parse", "HEAD"), last_sync(git)
    newest = sync_commit(git, synced) if synced else None
    if synced is None or newest != head:
        raise SyncRefused(
            "HEAD is not the merge commit of a sync" + ("; there are commits after it." if newest else "."),
            needed="the sync to be the newest commit; an older one is reverted, which a later sync copes with",
            fix=f"git revert -m 1 {newest[:12]}" if newest else "git log --oneline -- .litgpt/SYNCED",
        )
    first = git.text("rev-parse", f"{head}^1")
    if published := git.text("for-each-ref", "--format=%(refname:short)", "--contains", head, "refs/remotes"):
        raise SyncRefused(
            f"The sync was pushed already ({published.splitlines()[0]} has it).",
            needed="history that others have to stay",
            fix=f"git revert -m 1 {head[:12]}",
        )
    before, now = entries_of_tree(git, first), entries_of_tree(git, head)
    refuse_if_in_the_way(git, before, have=now)
    git.run("reset", "--keep", "--quiet", first)
    older = last_sync(git)
    if older is None or older.manifest.commit != synced.manifest.commit:
        for kind in ("tags", "heads"):
            local = f"refs/litgpt/{kind}/{synced.manifest.ref}"
            if git.maybe("rev-parse", "--verify", "--quiet", local) == synced.manifest.commit:
                git.run("update-ref", "-d", local)
    return synced.manifest.ref, first
