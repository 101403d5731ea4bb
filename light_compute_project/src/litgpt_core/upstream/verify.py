"""Verifies that LitGPT's files equal upstream's byte for byte: the installed wheel and the synced tree.

Works offline, without git, in well under a second: files are hashed and compared with a committed manifest, which must
match the tree id in its head. Byte code in `__pycache__` is ignored.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from litgpt_core.core.errors import LightComputeError
from litgpt_core.upstream.manifest import Manifest, ManifestEntry, blob_id, path_text, read_manifest
from litgpt_core.upstream.pin import PACKAGE, installed_package, pinned_tag, pinned_version
from litgpt_core.upstream.placement import CI_FOLDERS, MANIFEST, RECORD, Synced, parse_record
from litgpt_core.upstream.refusal import SyncRefused, shown
from litgpt_core.upstream.remote import manifest_path

_LEFT_BY_TOOLS = ("__pycache__", ".ipynb_checkpoints", ".pytest_cache", ".mypy_cache", ".ruff_cache", ".DS_Store")


@dataclass(frozen=True, kw_only=True)
class FileDifference:
    """One file that differs from upstream's."""

    kind: str
    """changed, missing or extra."""
    path: str
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Verification:
    """The result of one comparison."""

    subject: str
    """What was compared."""
    files: int
    """Number of upstream files."""
    differences: tuple[FileDifference, ...] = ()
    problem: str = ""
    """Why nothing could be compared, or another problem than differing files; else empty."""
    fix: str = ""
    """The command to run if there is a problem."""

    @property
    def good(self) -> bool:
        """True if there is no difference and no problem."""
        return not self.problem and not self.differences

    def render(self) -> str:
        """The result as text, with every differing file."""
        if self.good:
            return f"ok    {self.subject}: {self.files} of {self.files} files identical"
        lines = [f"FAIL  {self.subject}" + (f": {self.problem}" if self.problem else "")]
        for item in self.differences:
            lines.append(f"      {item.kind:<8}{shown(item.path)}" + (f" ({item.note})" if item.note else ""))
        if self.fix:
            lines.append(f"      try:    {self.fix}")
        return "\n".join(lines)


def verify(root: Path) -> list[Verification]:
    """Compare the installed wheel, and the synced tree if there is one, with their manifests.

    Args:
        root: Top folder of a checkout of this project.
    """
    results = [_caught("installed litgpt", lambda: verify_package(root))]
    if (root / RECORD).exists() or (root / MANIFEST).exists():
        results.append(_caught("synced tree", lambda: verify_tree(root)))
    return results


def _caught(subject: str, compare: Callable[[], Verification]) -> Verification:
    try:
        return compare()
    except LightComputeError as error:
        return Verification(subject=subject, files=0, problem=error.given, fix=error.fix)
    except OSError as error:
        return Verification(subject=subject, files=0, problem=str(error))


def verify_package(root: Path) -> Verification:
    """Compare the installed package with the manifest of the pinned version."""
    version, tag = pinned_version(root), pinned_tag(root)
    installed = installed_package()
    subject = f"installed {PACKAGE} {installed.version} against {tag}"
    fix = f"uv sync --reinstall-package {PACKAGE}"
    manifest = manifest_of_pin(root)
    expected = {path: entry for path, entry in manifest.entries.items() if path.startswith(f"{PACKAGE}/")}
    problem = f"pyproject.toml pins {version}" if installed.version != version else ""
    if installed.origin:
        problem = f"installed from {installed.origin}, not as a release" + (f"; {problem}" if problem else "")
    found = _files_below(installed.folder, prefix=PACKAGE)
    differences = _differences(expected, base=installed.folder.parent, found=found)
    if installed.origin and not differences and installed.version == version:
        problem = ""  # the same bytes from another source
    return Verification(subject=subject, files=len(expected), differences=differences, problem=problem, fix=fix)


def manifest_of_pin(root: Path) -> Manifest:
    """The manifest of the pinned version. Raises SyncRefused if it is missing or corrupted."""
    tag = pinned_tag(root)
    path = manifest_path(root, tag)
    if not path.is_file():
        raise SyncRefused(
            f"There is no manifest of the pinned version: {path.relative_to(root).as_posix()} is missing.",
            fix=f"uv run lcp sync --record {tag}",
        )
    return read_manifest(path)


def read_synced(root: Path) -> Synced | None:
    """The record of the sync in a work tree, or None. Raises SyncRefused if it is corrupted."""
    if not (root / RECORD).exists():
        return None
    return parse_record((root / RECORD).read_text(encoding="utf-8"), manifest=read_manifest(root / MANIFEST))


def verify_tree(root: Path) -> Verification:
    """Compare the files of a sync with its record, and the record with this project's manifest."""
    synced = read_synced(root)
    if synced is None:
        return Verification(subject="synced tree", files=0, problem=f"{MANIFEST} exists and {RECORD} does not")
    manifest = synced.manifest
    own = manifest_path(root, manifest.ref)
    problem = ""
    if own.is_file() and (known := read_manifest(own)) != manifest:
        problem = f"{own.name} lists commit {known.commit}, the sync has {manifest.commit}"
    expected = synced.entries()
    differences = _differences(expected, base=root, found=_found_in_tree(root, synced))
    return Verification(
        subject=f"synced tree against {manifest.ref} (commit {manifest.commit[:12]})",
        files=len(expected),
        differences=differences,
        problem=problem,
        fix="git restore --source=HEAD --staged --worktree -- PATH, or --undo; remove extra files",
    )


def _found_in_tree(root: Path, synced: Synced) -> set[str]:
    """Files in the folders that belong to upstream entirely."""
    tops = {path.split("/", 1)[0] for path in synced.entries() if "/" in path} - set(CI_FOLDERS)
    return {name for top in tops for name in _files_below(root / top, prefix=top)}


def _files_below(folder: Path, *, prefix: str) -> set[str]:
    """Paths of all files and links, starting with `prefix/`; caches of tools are skipped."""
    return {
        f"{prefix}/{Path(place).relative_to(folder).as_posix()}/{name}".replace("/./", "/")
        for place, folders, names in _walk(folder)
        for name in [*names, *(f for f in folders if (Path(place) / f).is_symlink())]
    }


def _walk(folder: Path) -> Iterator[tuple[str, list[str], list[str]]]:
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name not in _LEFT_BY_TOOLS]
        yield place, folders, [name for name in names if name not in _LEFT_BY_TOOLS]


def _differences(expected: Mapping[str, ManifestEntry], *, base: Path, found: set[str]) -> tuple[FileDifference, ...]:
    result = []
    for path, entry in expected.items():
        content = _content(base / path)
        if content is None:
            result.append(FileDifference(kind="missing", path=path))
        elif blob_id(content) != entry.blob:
            same_text = blob_id(content.replace(b"\r\n", b"\n")) == entry.blob
            note = "line endings only: git config core.autocrlf input, then check it out again" if same_text else ""
            result.append(FileDifference(kind="changed", path=path, note=note))
    names = {path_text(os.fsencode(name)) if os.name != "nt" else name for name in found}
    result += [FileDifference(kind="extra", path=name) for name in names - set(expected)]
    return tuple(sorted(result, key=lambda item: (item.kind, item.path)))


def _content(path: Path) -> bytes | None:
    """The content that git stores for a path: a file's bytes or a link's target; None if it is neither."""
    try:
        return os.fsencode(path.readlink()) if path.is_symlink() else path.read_bytes()
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        return None
