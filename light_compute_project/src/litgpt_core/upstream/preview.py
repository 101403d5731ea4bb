"""The report of a dry run: upstream's log, changed paths, and changes of the names we use."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from litgpt_core.core.errors import LightComputeError
from litgpt_core.upstream.git import Git
from litgpt_core.upstream.manifest import ManifestEntry, read_manifest
from litgpt_core.upstream.names import compare_names, render_changes
from litgpt_core.upstream.pin import installed_package, pinned_tag
from litgpt_core.upstream.refusal import shown
from litgpt_core.upstream.remote import manifest_path
from litgpt_core.upstream.signatures import Sources, commit_sources, folder_sources
from litgpt_core.upstream.state import open_repository, refuse_unless_ready
from litgpt_core.upstream.sync import SyncPlan, make_plan, refuse_plan

_LONGEST_LOG = 60


def preview(root: Path, name: str, *, url: str, with_ci: bool = False) -> tuple[str, LightComputeError | None]:
    """The text of a dry run, and the error with which a sync would be refused, if any. Only fetches objects.

    Args:
        root: Top folder of the checkout.
        name: Tag or branch of upstream.
        url: Upstream's repository.
        with_ci: Also `.github/` and `.lightning/`.

    Raises:
        SyncRefused: The remote or the ref is not available.
    """
    git = open_repository(root)
    plan = make_plan(git, name, url=url, with_ci=with_ci)
    parts = [_headline(plan), _log(git, plan), _paths(plan), _names(root, git, plan)]
    refusal: LightComputeError | None = None
    try:
        refuse_unless_ready(git)
        refuse_plan(git, plan)
    except LightComputeError as error:
        refusal = error
    return "\n\n".join(parts), refusal


def _headline(plan: SyncPlan) -> str:
    new = plan.new.manifest
    before = f"LitGPT {plan.old.manifest.ref} is here" if plan.old else "no source tree of LitGPT is here"
    return f"Dry run: {before}; {new.ref} is commit {new.commit}, tree {new.tree}."


def _log(git: Git, plan: SyncPlan) -> str:
    new = plan.new.manifest
    if plan.old is None:
        count = git.text("rev-list", "--count", new.commit)
        return f"Upstream's log: {count} commits, the newest:\n" + _commits(git, new.commit, most=5)
    old = plan.old.manifest
    if git.maybe("rev-parse", "--verify", "--quiet", f"{old.commit}^{{commit}}") is None:
        return (
            f"Upstream's log: this clone does not have {old.ref} (commit {old.commit}); git fetch --unshallow adds it."
        )
    parts = []
    for text, span in (("added", f"{old.commit}..{new.commit}"), ("removed", f"{new.commit}..{old.commit}")):
        number = int(git.text("rev-list", "--count", span))
        if number:
            parts.append(f"Upstream's log, {number} commits {text}:\n" + _commits(git, span, most=_LONGEST_LOG))
    return "\n\n".join(parts) or "Upstream's log: no commit between the two."


def _commits(git: Git, span: str, *, most: int) -> str:
    lines = git.text("log", f"--max-count={most}", "--format=%h %cs %s", "--no-decorate", span).splitlines()
    return "\n".join(f"  {line if line.isprintable() else ascii(line)}" for line in lines)


def _paths(plan: SyncPlan) -> str:
    rows = path_changes(plan.old.entries() if plan.old else {}, new=plan.brought)
    count = {letter: sum(row.startswith(letter) for row in rows) for letter in "AMRD"}
    head = "Paths: {A} added, {M} changed, {R} renamed, {D} removed".format(**count)
    if plan.old is None:
        tops: dict[str, int] = {}
        for path in plan.brought:
            top = path.split("/", 1)[0] + ("/" if "/" in path else "")
            tops[top] = tops.get(top, 0) + 1
        rows = [f"A  {top}" + (f" ({n} files)" if top.endswith("/") else "") for top, n in sorted(tops.items())]
    return head + "".join(f"\n  {row}" for row in rows)


def path_changes(old: Mapping[str, ManifestEntry], *, new: Mapping[str, ManifestEntry]) -> list[str]:
    """One line per path: `A`dded, `M`odified, `D`eleted, or `R`enamed without a change of its bytes."""
    gone, added = set(old) - set(new), set(new) - set(old)
    by_blob = {old[path].blob: path for path in sorted(gone, reverse=True)}
    rows = {}
    for path in sorted(added):
        source = by_blob.pop(new[path].blob, None)
        rows[path] = f"R  {shown(source)} -> {shown(path)}" if source else f"A  {shown(path)}"
        gone.discard(source or "")
    rows |= {path: f"D  {shown(path)}" for path in gone}
    rows |= {path: f"M  {shown(path)}" for path in set(old) & set(new) if old[path] != new[path]}
    return [rows[path] for path in sorted(rows)]


def _names(root: Path, git: Git, plan: SyncPlan) -> str:
    before, what = _sources_before(root, git, plan)
    changes = compare_names(root, old=before, new=commit_sources(git, plan.ref.commit))
    counts: dict[str, int] = {}
    for change in changes:
        counts[change.state] = counts.get(change.state, 0) + 1
    summary = ", ".join(f"{number} {state}" for state, number in counts.items())
    head = f"LitGPT's names used by our code and tests, {what} -> {plan.ref.name}: {summary}"
    return f"{head}\n{render_changes(changes)}"


def _sources_before(root: Path, git: Git, plan: SyncPlan) -> tuple[Sources, str]:
    """The sources our code uses now: the synced tree, else the pinned release, from its tag or from the wheel."""
    known = []
    if plan.old is not None:
        known.append((plan.old.manifest.commit, plan.old.manifest.ref))
    if (path := manifest_path(root, pinned_tag(root))).is_file():
        known.append((read_manifest(path).commit, pinned_tag(root)))
    for commit, ref in known:
        if git.maybe("rev-parse", "--verify", "--quiet", f"{commit}^{{tree}}"):
            return commit_sources(git, commit), ref
    installed = installed_package()
    return folder_sources(installed.folder.parent), f"installed {installed.version}"
