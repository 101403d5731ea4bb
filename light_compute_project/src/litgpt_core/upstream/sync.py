"""Syncs one version of LitGPT's tree as a merge commit whose tree is constructed rather than three-way merged.

Every path of the new tree is either ours, as in HEAD, or upstream's, as in its commit; this is verified on the tree
object before the commit is created. The commit has two parents, HEAD and upstream's commit, so that `git log`, `git
blame` and later merges see upstream's history. All steps before the last only add unreferenced objects; the last step
is a fast-forward. A refusal leaves HEAD, refs, index and work tree unchanged.
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

from litgpt_core.upstream.git import Git, decode, encode
from litgpt_core.upstream.manifest import LINK_MODE, ManifestEntry, entries_of_tree, manifest_of_commit
from litgpt_core.upstream.placement import (
    ASIDE,
    Synced,
    case_twins,
    clashes,
    foreign_changes,
    leaving_link,
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
"""Author of the merge commit if git has no name and address configured."""


@dataclass(frozen=True, kw_only=True)
class SyncPlan:
    """The plan of a sync."""

    ref: RemoteRef
    old: Synced | None
    """The present sync, if any."""
    new: Synced
    head: dict[str, ManifestEntry]
    """Every file of HEAD."""

    @cached_property
    def brought(self) -> dict[str, ManifestEntry]:
        """Files of the sync, including the record."""
        return self.new.entries()

    @cached_property
    def ours(self) -> dict[str, ManifestEntry]:
        """Files of HEAD that do not belong to a sync."""
        before = self.old.entries() if self.old else {}
        return {path: entry for path, entry in self.head.items() if path not in before}

    @property
    def nothing_to_do(self) -> bool:
        """True if HEAD already contains exactly this."""
        return self.old == self.new


@dataclass(frozen=True, kw_only=True)
class SyncResult:
    """The result of a sync."""

    plan: SyncPlan
    commit: str
    """The merge commit, or HEAD if there was nothing to do."""
    before: str
    """HEAD before."""
    notes: tuple[str, ...] = ()


def make_plan(git: Git, name: str, *, url: str, with_ci: bool) -> SyncPlan:
    """Resolve the ref, fetch its objects and read both trees, without visible changes.

    Raises:
        SyncRefused: The remote or the ref is not available, a tag moved, or the record of the last sync is corrupted.
    """
    old = last_sync(git)
    ref = look_up(git, name, url=url)
    refuse_if_moved(git, ref)
    fetch(git, ref, url=url)
    new = Synced(manifest=manifest_of_commit(git, ref.commit, ref=name), with_ci=with_ci)
    return SyncPlan(ref=ref, old=old, new=new, head=entries_of_tree(git, "HEAD"))


def refuse_plan(git: Git, plan: SyncPlan) -> None:
    """Raise SyncRefused if the plan would change one of our files, lose an edit or overwrite a file."""
    if changed := foreign_changes(plan.head, synced=plan.old):
        source = record_commit(git)
        raise SyncRefused(
            f"Files of LitGPT were changed in this repository:{listed(changed)}",
            needed="unchanged upstream files; make your changes in files of your own",
            fix=f"git restore --source={source[:12] if source else 'COMMIT_OF_THE_SYNC'} -- PATH, commit, try again",
        )
    _refuse_leaving_links(git, plan)
    problems = clashes(plan.brought, ours=plan.ours)
    if git.maybe("config", "--bool", "core.ignorecase") == "true":
        problems += case_twins(plan.brought)
    refuse_clashes(problems, ref=plan.ref.name)
    refuse_if_in_the_way(git, plan.brought, have=plan.head)


def _refuse_leaving_links(git: Git, plan: SyncPlan) -> None:
    """Raise SyncRefused if one of upstream's links may lead out of this repository: who opens it reads another file."""
    for path, entry in plan.brought.items():
        if entry.mode != LINK_MODE:
            continue
        target = decode(git.run("cat-file", "blob", entry.blob))
        if leaving_link(path, target):
            raise SyncRefused(
                f"LitGPT {plan.ref.name} has a link that leads out of the repository: {path} -> {target[:200]!r}",
                needed="links that stay inside",
                fix="ask upstream, or take another version",
            )


def sync(root: Path, name: str, *, url: str, with_ci: bool = False) -> SyncResult:
    """Sync LitGPT's tree at `name`.

    Args:
        root: Top folder of the checkout.
        name: Tag or branch of upstream.
        url: Upstream's repository.
        with_ci: Also `.github/` and `.lightning/`.

    Raises:
        SyncRefused: The sync is not possible; nothing was changed.
    """
    git = open_repository(root)
    refuse_unless_ready(git)
    before = git.text("rev-parse", "HEAD")
    plan = make_plan(git, name, url=url, with_ci=with_ci)
    refuse_plan(git, plan)
    if plan.nothing_to_do:
        return SyncResult(plan=plan, commit=before, before=before)
    tree = build_tree(git, plan)
    git, note = _with_identity(git)
    commit = _commit(git, tree, plan=plan, before=before)
    _fast_forward(git, commit, plan=plan)
    git.run("update-ref", plan.ref.local, plan.ref.commit)
    return SyncResult(plan=plan, commit=commit, before=before, notes=(note,) if note else ())


def build_tree(git: Git, plan: SyncPlan) -> str:
    """Write the new tree with a temporary index and verify it; returns the id of the tree object."""
    entries = plan.ours | plan.brought
    for content in plan.new.record().values():
        git.run("hash-object", "-w", "--stdin", "--no-filters", stdin=content)
    lines = b"".join(encode(f"{e.mode} {e.blob}\t{path}\0") for path, e in entries.items())
    with tempfile.TemporaryDirectory(prefix="light-compute-sync-") as folder:
        separate = dataclasses.replace(git, index=Path(folder) / "index")
        separate.run("update-index", "-z", "--add", "--index-info", stdin=lines)
        tree = separate.text("write-tree")
    _verify_tree(entries_of_tree(git, tree), plan=plan)
    return tree


def _verify_tree(tree: Mapping[str, ManifestEntry], *, plan: SyncPlan) -> None:
    """Check that every entry is ours or upstream's, unchanged, and that none is missing."""
    assert set(tree) == set(plan.ours) | set(plan.brought), "the new tree has other paths than ours and upstream's"
    for path, entry in tree.items():
        assert entry == (plan.brought.get(path) or plan.ours[path]), f"the new tree has other bytes at {path}"


def _with_identity(git: Git) -> tuple[Git, str]:
    """git with an author, and a note if none was configured."""
    if git.succeeds("-c", "user.useConfigOnly=true", "var", "GIT_COMMITTER_IDENT"):
        return git, ""
    name, address = FALLBACK_IDENTITY
    note = (
        f"git has no user name configured, so the author of the merge commit is {name} <{address}>. To change it:\n"
        '  git config user.name "YOUR NAME" && git config user.email YOU@EXAMPLE\n'
        "  git commit --amend --reset-author --no-edit"
    )
    return dataclasses.replace(git, identity=FALLBACK_IDENTITY), note


def _commit(git: Git, tree: str, *, plan: SyncPlan, before: str) -> str:
    m = plan.new.manifest
    text = (
        f"Bring in LitGPT {m.ref}\n\n"
        f"Upstream's commit {m.commit}, tree {m.tree}.\n"
        f"Every path is ours as the first parent has it, or upstream's as the second has it ({ASIDE}/SYNCED).\n"
    )
    arguments = ("commit-tree", "--no-gpg-sign", "-p", before, "-p", m.commit, "-F", "-", tree)
    return git.run(*arguments, stdin=text.encode()).decode().strip()


def _fast_forward(git: Git, commit: str, *, plan: SyncPlan) -> None:
    options = ("--ff-only", "--no-overwrite-ignore", "--no-autostash", "--no-verify-signatures", "--no-stat", "--quiet")
    try:
        git.run("merge", *options, commit)
    except SyncRefused as error:
        if git.text("rev-parse", "HEAD") == commit:
            raise
        _roll_back(git, plan=plan)
        raise SyncRefused(
            f"The files could not be written; the partial changes were rolled back. {error.given}",
            needed="disk space and write permission here",
            fix="git status, then run the same command again",
        ) from error


def _roll_back(git: Git, *, plan: SyncPlan) -> None:
    """After a failed fast-forward: restore tracked files to HEAD and remove new ones.

    Safe because tracked files were unchanged and the new paths did not exist before.
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
    """Undo the last sync if HEAD is its merge commit: `(ref that was undone, HEAD now)`.

    Uncommitted changes in our files are kept.

    Raises:
        SyncRefused: HEAD is not the merge commit of a sync, was pushed, or local changes prevent it.
    """
    git = open_repository(root)
    refuse_unless_ready(git, clean=False)
    head, synced = git.text("rev-parse", "HEAD"), last_sync(git)
    newest = sync_commit(git, synced) if synced else None
    if synced is None or newest != head:
        raise SyncRefused(
            "HEAD is not the merge commit of a sync" + ("; there are commits after it." if newest else "."),
            needed="the sync as the newest commit; revert an older one (later syncs support that)",
            fix=f"git revert -m 1 {newest[:12]}" if newest else "git log --oneline -- .litgpt/SYNCED",
        )
    first = git.text("rev-parse", f"{head}^1")
    if published := git.text("for-each-ref", "--format=%(refname:short)", "--contains", head, "refs/remotes"):
        raise SyncRefused(
            f"The sync was already pushed ({published.splitlines()[0]} has it).",
            needed="unchanged public history",
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
