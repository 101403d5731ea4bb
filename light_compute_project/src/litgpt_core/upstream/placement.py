"""The path of each upstream file in our repository, and the committed record of a sync.

Pure functions of manifests. In LitGPT's own folders, and at the root in Markdown files and its citation, an upstream
file keeps its path. Every other file, which may affect our build, tests, git or editor under a name that nobody here
has thought of, is stored unchanged in `.litgpt/`, and so are those of which we have our own. `.github/` and
`.lightning/` are left out by default, because upstream's workflows publish packages and pages. The record consists of
two files, `.litgpt/SYNCED` (ref, commit, tree, with or without CI) and `.litgpt/manifest.txt`. So the next sync and
every verification know the synced files without git's history, which a squash or a shallow clone does not have.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from litgpt_core.upstream.manifest import FILE_MODES, Manifest, ManifestEntry, blob_id
from litgpt_core.upstream.refusal import SyncRefused, listed

ASIDE = ".litgpt"
RECORD = f"{ASIDE}/SYNCED"
MANIFEST = f"{ASIDE}/manifest.txt"
OURS = "light_compute_project"

FOLDERS = frozenset({"litgpt", "tests", "tutorials", "config_hub", "extensions"})
"""LitGPT's folders, which lie at our root."""
ROOT_FILE = re.compile(r"(?!README\.md$)[\w-]+\.(md|cff)")
"""Root files that stay there: pages. README.md and LICENSE are ours."""
CI_FOLDERS = (".github", ".lightning")


@dataclass(frozen=True, kw_only=True)
class Synced:
    """The content of the record: the upstream tree in this repository."""

    manifest: Manifest
    with_ci: bool
    """Whether `.github/` and `.lightning/` are included."""

    def entries(self) -> dict[str, ManifestEntry]:
        """Every file of the sync, including the record, by its path in our repository."""
        return placed(self.manifest, with_ci=self.with_ci) | {
            path: ManifestEntry(mode="100644", blob=blob_id(content)) for path, content in self.record().items()
        }

    def record(self) -> dict[str, bytes]:
        """The bytes of the two files of the record, by path."""
        m = self.manifest
        text = f"ref {m.ref}\ncommit {m.commit}\ntree {m.tree}\nci {'yes' if self.with_ci else 'no'}\n"
        return {RECORD: text.encode(), MANIFEST: m.render().encode()}


def parse_record(record: str, *, manifest: Manifest) -> Synced:
    """Read `.litgpt/SYNCED`. Raises SyncRefused if it is corrupted or belongs to another manifest."""
    found = re.fullmatch(r"ref (\S+)\ncommit ([0-9a-f]{40})\ntree ([0-9a-f]{40})\nci (yes|no)\n", record)
    if found is None or found.groups()[:3] != (manifest.ref, manifest.commit, manifest.tree):
        raise SyncRefused(
            f"{RECORD} and {MANIFEST} do not fit together: one of them was altered.",
            needed="both files as written by the last sync",
            fix=f"git log --oneline -- {ASIDE}",
        )
    return Synced(manifest=manifest, with_ci=found[4] == "yes")


def placed(manifest: Manifest, *, with_ci: bool) -> dict[str, ManifestEntry]:
    """Upstream's files by their path in our repository.

    Raises:
        SyncRefused: Upstream has files in one of our folders, or a submodule.
    """
    result = {}
    for path, entry in manifest.entries.items():
        top = path.split("/", 1)[0]
        if key(top) in (OURS, ASIDE):
            raise SyncRefused(f"LitGPT {manifest.ref} has files of its own under {top}/, which is ours: {path}")
        if entry.mode not in FILE_MODES:
            raise SyncRefused(f"LitGPT {manifest.ref} has a submodule at {path}, whose files cannot be verified.")
        if top in CI_FOLDERS and not with_ci:
            continue
        stays = top in (*FOLDERS, *CI_FOLDERS) if "/" in path else ROOT_FILE.fullmatch(path) is not None
        result[path if stays else f"{ASIDE}/{path}"] = entry
    for path in (RECORD, MANIFEST):
        if path in result:
            raise SyncRefused(f"LitGPT {manifest.ref} has a file that would be set aside as {path}.")
    return result


def leaving_link(path: str, target: str) -> bool:
    """Whether a link at `path` of a work tree may lead out of it, or into `.git`.

    Only `../` at the beginning goes up, where folders are real: behind a name, which may be a link, it is refused.
    """
    parts = target.split("/")
    ups = next((number for number, part in enumerate(parts) if part != ".."), len(parts))
    place = [*path.split("/")[:-1][: len(parents(path)) - ups], *parts[ups:]]
    return ups > len(parents(path)) or target.startswith("/") or ".." in parts[ups:] or ".git" in map(key, place)


def foreign_changes(head: Mapping[str, ManifestEntry], *, synced: Synced | None) -> list[str]:
    """Synced files that differ or are missing in `head`, each with the reason."""
    if synced is None:
        return []
    wrong = []
    for path, entry in synced.entries().items():
        there = head.get(path)
        if there is None:
            wrong.append(f"{path}: removed")
        elif there != entry:
            wrong.append(f"{path}: {'edited' if there.blob != entry.blob else 'mode changed'}")
    return sorted(wrong)


def clashes(brought: Iterable[str], *, ours: Iterable[str]) -> list[str]:
    """Upstream paths that conflict with ours, each with the reason.

    Conflicts are equal paths, a file where the other has a folder, and names that differ only in case or in Unicode
    normalisation, which are equal on macOS and Windows.
    """
    files = {key(path): path for path in ours}
    folders = {key(parent): parent for path in files.values() for parent in parents(path)}
    problems = []
    for path in sorted(brought):
        if (other := files.get(key(path))) is not None:
            problems.append(f"{path}: is ours" if other == path else f"{path}: differs from our {other} in case only")
        elif (other := folders.get(key(path))) is not None:
            problems.append(f"{path}: a file there, a folder of ours ({other}/)")
        for parent in parents(path):
            if (other := files.get(key(parent))) is not None:
                problems.append(f"{path}: needs a folder where {other} is a file of ours")
            elif (other := folders.get(key(parent))) is not None and other != parent:
                problems.append(f"{path}: differs from our {other}/ in case only")
    return problems


def case_twins(paths: Iterable[str]) -> list[str]:
    """Paths that are equal on a case-insensitive file system."""
    seen: dict[str, str] = {}
    twins = []
    for path in sorted(paths):
        for name in (*parents(path), path):
            if seen.setdefault(key(name), name) != name:
                twins.append(f"{path}: differs from {seen[key(name)]} in case only")
                break
    return twins


def parents(path: str) -> list[str]:
    """The parent folders of a path, outermost first."""
    return [str(parent) for parent in reversed(PurePosixPath(path).parents)][1:]


def key(path: str) -> str:
    """Equal for all spellings that a file system may treat as the same path."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())


def refuse_clashes(problems: list[str], *, ref: str) -> None:
    """Raise SyncRefused if there are any."""
    if problems:
        raise SyncRefused(
            f"LitGPT {ref} has paths that conflict with ours:{listed(problems)}",
            needed="every path to be either ours or upstream's",
            fix="git mv OUR_PATH light_compute_project/..., commit, then again",
        )
