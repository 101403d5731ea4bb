"""Resolves a ref in upstream's repository and fetches its objects, without creating or moving a ref."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from litgpt_core.upstream.git import Git, decode
from litgpt_core.upstream.manifest import read_manifest
from litgpt_core.upstream.refusal import SyncRefused

UPSTREAM_URL = "https://github.com/Lightning-AI/litgpt"
MANIFESTS = "light_compute_project/upstream"
"""Folder of this project's manifests, relative to the top of the repository."""


@dataclass(frozen=True, kw_only=True)
class RemoteRef:
    """A tag or branch as the remote has it now."""

    name: str
    """As given: v0.5.13 or main."""
    full: str
    """refs/tags/v0.5.13 or refs/heads/main."""
    commit: str

    @property
    def local(self) -> str:
        """The local ref, refs/litgpt/..., separate from our own tags and branches."""
        return self.full.replace("refs/", "refs/litgpt/", 1)


def look_up(git: Git, name: str, *, url: str) -> RemoteRef:
    """The tag called `name`, else the branch.

    Raises:
        SyncRefused: The remote does not answer, or has no such tag or branch.
    """
    if not git.succeeds("check-ref-format", f"refs/tags/{name}") or name.startswith("-"):
        raise SyncRefused(f"{name!r} cannot be the name of a tag.", needed="one such as v0.5.13", fix="--ref v0.5.13")
    candidates = (f"refs/tags/{name}", f"refs/heads/{name}")
    answer = ask(git, url, *candidates, f"refs/tags/{name}^{{}}")
    for full in candidates:
        if full in answer:
            # an annotated tag is a separate object; the row with ^{} names the commit
            return RemoteRef(name=name, full=full, commit=answer.get(f"{full}^{{}}", answer[full]))
    newest = newest_tags(ask(git, url, "refs/tags/v*"))[:3]
    raise SyncRefused(
        f"{url} has no tag and no branch {name!r}.",
        needed="one of its names" + (f", such as {', '.join(newest)}" if newest else ""),
        fix=f"--ref {newest[0]}" if newest else f"git ls-remote --tags {url}",
    )


def ask(git: Git, url: str, *patterns: str, timeout: float = 60) -> dict[str, str]:
    """The remote's object ids by ref. Raises SyncRefused if it does not answer."""
    try:
        output = decode(git.run("ls-remote", "--quiet", "--", url, *patterns, timeout=timeout))
    except SyncRefused as error:
        raise SyncRefused(
            f"{url} cannot be read. {error.given}",
            needed="LitGPT's repository, through the network or as a folder on this machine",
            fix="try again with a network, or --url FOLDER_OF_A_CLONE",
        ) from error
    rows = (line.split("\t", 1) for line in output.splitlines())
    return {ref: identity for identity, ref in rows}


def newest_tags(refs: Mapping[str, str]) -> list[str]:
    """Release tags among refs, newest first."""
    found = (re.fullmatch(r"refs/tags/(v(\d+)\.(\d+)\.(\d+))", ref) for ref in refs)
    numbered = [(int(m[2]), int(m[3]), int(m[4]), m[1]) for m in found if m]
    return [row[3] for row in sorted(numbered, reverse=True)]


def known_commits(git: Git, name: str) -> dict[str, str]:
    """The commits recorded for a tag, by the place of the record."""
    known = {}
    path = git.root / MANIFESTS / f"manifest-{name}.txt"
    if "/" not in name and path.is_file():
        known[f"{MANIFESTS}/{path.name}"] = read_manifest(path).commit
    if local := git.maybe("rev-parse", "--verify", "--quiet", f"refs/litgpt/tags/{name}^{{commit}}"):
        known[f"refs/litgpt/tags/{name}"] = local
    return known


def refuse_if_moved(git: Git, ref: RemoteRef) -> None:
    """Raise SyncRefused if a tag no longer points to its recorded commit."""
    if not ref.full.startswith("refs/tags/"):
        return
    for place, commit in known_commits(git, ref.name).items():
        if commit != ref.commit:
            raise SyncRefused(
                f"The tag {ref.name} was moved: {place} says {commit}, the remote says {ref.commit}.",
                needed="an unchanged tag; a release does not change after publication",
                fix="ask upstream; if the move is correct: "
                + (f"git update-ref -d {place}" if place.startswith("refs/") else f"git rm {place}, and commit"),
            )


def fetch(git: Git, ref: RemoteRef, *, url: str) -> None:
    """Fetch the commit and its history into the object store, without writing a ref or FETCH_HEAD.

    Raises:
        SyncRefused: The transfer failed, or returned another commit than requested.
    """
    command = ("fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--no-recurse-submodules", "--no-auto-gc")
    git.run(*command, "--", url, ref.full, timeout=3600)
    if git.maybe("rev-parse", "--verify", "--quiet", f"{ref.commit}^{{commit}}") != ref.commit:
        raise SyncRefused(
            f"{ref.name} moved while it was fetched.", needed=f"commit {ref.commit}", fix="the same command again"
        )


def manifest_path(root: Path, ref: str) -> Path:
    """Path of the manifest of a tag in a checkout of this project."""
    return root / MANIFESTS / f"manifest-{ref}.txt"
