"""The commands of `sync_upstream.py`, each a function that returns a text and an exit code."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from litgpt_core.core.errors import LightComputeError
from litgpt_core.upstream.git import Git
from litgpt_core.upstream.manifest import manifest_of_commit
from litgpt_core.upstream.names import (
    compare_definitions,
    read_snapshot,
    render_changes,
    render_snapshot,
    snapshot_path,
    take_snapshot,
    used_names,
)
from litgpt_core.upstream.pin import import_folder, installed_package, pinned_tag, pinned_version
from litgpt_core.upstream.placement import CI_FOLDERS, Synced
from litgpt_core.upstream.preview import preview
from litgpt_core.upstream.refusal import SyncRefused
from litgpt_core.upstream.remote import ask, fetch, look_up, manifest_path, newest_tags, refuse_if_moved
from litgpt_core.upstream.signatures import define, folder_sources
from litgpt_core.upstream.state import open_repository
from litgpt_core.upstream.sync import sync, undo
from litgpt_core.upstream.verify import read_synced, verify, verify_package

SCRIPT = "uv run lcp sync"


@dataclass(frozen=True, kw_only=True)
class CommandResult:
    """Output and exit code of a command."""

    text: str
    exit_code: int = 0


def answer_verify(root: Path) -> CommandResult:
    """Compare the installed wheel and the synced tree with their manifests; exit code 1 if anything differs."""
    results = verify(root)
    lines = [result.render() for result in results]
    if len(results) == 1:
        lines.append("ok    LitGPT's source tree is not in this repository, only the installed wheel")
    return CommandResult(text="\n".join(lines), exit_code=0 if all(result.good for result in results) else 1)


def answer_sync(root: Path, name: str, *, url: str, with_ci: bool) -> CommandResult:
    """Sync a version."""
    done = sync(root, name, url=url, with_ci=with_ci)
    manifest, brought = done.plan.new.manifest, done.plan.brought
    if done.commit == done.before:
        here = f"LitGPT {manifest.ref} is already here; nothing to do."
        return CommandResult(text=_joined([here, pin_remark(root, name)]))
    before = f"{done.plan.old.manifest.ref} -> " if done.plan.old else ""
    lines = [
        f"LitGPT {before}{manifest.ref}: {len(brought)} files, merge commit {done.commit[:12]}, "
        f"parents {done.before[:12]} (yours) and {manifest.commit[:12]} (upstream's).",
        f"All {len(done.plan.ours)} files of ours are unchanged.",
        _left_out(done.plan.new),
        *done.notes,
        pin_remark(root, name),
        f"To undo: {SCRIPT} --undo",
    ]
    return CommandResult(text=_joined(lines))


def answer_dry_run(root: Path, name: str, *, url: str, with_ci: bool) -> CommandResult:
    """Show what a sync would change; exit code 2 if it would be refused."""
    text, refusal = preview(root, name, url=url, with_ci=with_ci)
    end = f"A sync would be refused now. {refusal}" if refusal else "The sync is possible; nothing was changed."
    return CommandResult(
        text=_joined([f"{text}\n", end, pin_remark(root, name)]), exit_code=refusal.exit_code if refusal else 0
    )


def answer_undo(root: Path) -> CommandResult:
    """Undo the last sync."""
    ref, head = undo(root)
    return CommandResult(text=f"The sync to LitGPT {ref} is undone; HEAD is {head[:12]} again.")


def answer_status(root: Path, *, url: str) -> CommandResult:
    """Pin, installed version, synced ref, verification, newer tags; exit code 1 if the verification fails."""
    tag, synced = pinned_tag(root), _synced_on_disk(root)
    verified = answer_verify(root)
    lines = [f"pinned     {tag} (pyproject.toml)", f"installed  {_installed()}"]
    what = f"{synced.manifest.ref}, commit {synced.manifest.commit}" if synced else "nothing"
    lines.append(f"synced     {what}")
    lines.append(verified.text)
    try:
        tags = newest_tags(ask(Git(root=root), url, "refs/tags/v*", timeout=15))
        newer = tags[: tags.index(tag)] if tag in tags else tags[:3]
        lines.append("newer      " + (f"{', '.join(newer)}: {SCRIPT} --ref {newer[0]} --dry_run" if newer else "none"))
    except LightComputeError as error:
        lines.append(f"newer      unknown, the remote does not answer: {error.given.splitlines()[0]}")
    if synced:
        lines.append(pin_remark(root, synced.manifest.ref))
    return CommandResult(text=_joined(lines), exit_code=verified.exit_code)


def answer_names(root: Path) -> CommandResult:
    """Compare the installed package with the committed snapshot of the names we use; exit code 1 if one changed."""
    snapshot = read_snapshot(snapshot_path(root, pinned_tag(root)))
    installed = installed_package()
    sources = folder_sources(installed.folder.parent)
    found = {name: define(name, sources) for name in snapshot}
    changes = compare_definitions(snapshot, found, places=used_names(root, old=sources))
    broken = [change for change in changes if change.state in ("gone", "signature changed")]
    head = f"{len(snapshot)} names that our code uses, {pinned_tag(root)} -> installed {installed.version}:"
    return CommandResult(text=f"{head}\n{render_changes(changes)}", exit_code=1 if broken else 0)


def record_names(root: Path) -> CommandResult:
    """Write the snapshot of the names we use, from the installed package, which must be the pinned release."""
    checked = verify_package(root)
    if not checked.good:
        raise SyncRefused(f"The installed package is not the pinned release.\n{checked.render()}", fix=checked.fix)
    definitions = take_snapshot(root, sources=folder_sources(installed_package().folder.parent))
    path = snapshot_path(root, pinned_tag(root))
    path.write_text(render_snapshot(definitions), encoding="utf-8", newline="\n")
    return CommandResult(text=f"{path.relative_to(root).as_posix()}: {len(definitions)} names")


def record_manifest(root: Path, name: str, *, url: str) -> CommandResult:
    """Write the manifest of a tag, before the pin is changed. An existing manifest is never replaced."""
    git = open_repository(root)
    ref = look_up(git, name, url=url)
    refuse_if_moved(git, ref)
    fetch(git, ref, url=url)
    manifest, path = manifest_of_commit(git, ref.commit, ref=name), manifest_path(root, name)
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(manifest.render(), encoding="utf-8", newline="\n")
    return CommandResult(
        text=f"{path.relative_to(root).as_posix()}: {len(manifest.entries)} files, tree {manifest.tree}"
    )


def pin_remark(root: Path, name: str) -> str:
    """A warning with commands if the pinned version is not the synced one; else empty."""
    try:
        version = pinned_version(root)
    except SyncRefused as error:
        return f"warning: {error.given}"
    if name == f"v{version}":
        return ""
    text = f"warning: pyproject.toml pins litgpt=={version}, so our code still imports {version}, not {name}. "
    back = f"{SCRIPT} --ref v{version}"
    if not name.startswith("v"):
        return f"{text}To have both the same:\n  {back}"
    onward = (f'make upgrade PACKAGES="litgpt=={name[1:]}"', f"{SCRIPT} --record {name}", f"{SCRIPT} --record_names")
    return "\n".join([f"{text}To have both the same, either", *(f"  {line}" for line in onward), "or", f"  {back}"])


def _left_out(synced: Synced) -> str:
    skipped = [path for path in synced.manifest.entries if path.split("/", 1)[0] in CI_FOLDERS]
    if synced.with_ci:
        return "warning: .github/ is included; its workflows publish packages and pages: disable unwanted ones."
    return f"{len(skipped)} files of .github/ and .lightning/ were left out (--with_ci adds them)." if skipped else ""


def _synced_on_disk(root: Path) -> Synced | None:
    try:
        return read_synced(root)
    except (OSError, LightComputeError):
        return None  # the verification reports the error


def _installed() -> str:
    try:
        installed = installed_package()
    except LightComputeError as error:
        return error.given
    taken = import_folder()
    elsewhere = taken is not None and taken.resolve() != installed.folder.resolve()
    return installed.version + (f"; but this process would import {taken}" if elsewhere else "")


def _joined(lines: Iterable[str]) -> str:
    """The lines that are not empty, joined."""
    return "\n".join(line for line in lines if line)
