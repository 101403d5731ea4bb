"""Manifests: every path of one upstream tree with its mode and blob id, verifiable without git.

A blob id is sha1("blob <length>\\0" + bytes) and the tree id follows from the blob ids. So files on disk can be
compared with a tag offline, and a changed manifest no longer matches the tree id in its head. Its text:

    # ref v0.5.13
    # commit 2685...
    # tree f964...
    100644 cd79... .devcontainer/Dockerfile

sorted by path; a path with characters that would break a line is written as a JSON string.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from litgpt_core.upstream.git import Git, decode, encode
from litgpt_core.upstream.refusal import SyncRefused

LINK_MODE = "120000"
FILE_MODES = ("100644", "100755", LINK_MODE)
"""Plain file, executable file, symbolic link."""


@dataclass(frozen=True, kw_only=True)
class ManifestEntry:
    """One file of a tree."""

    mode: str
    """One of `FILE_MODES`, or 160000 for a submodule."""
    blob: str
    """40 hexadecimal digits."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """All files of one upstream commit."""

    ref: str
    """Name of the tag or branch, such as v0.5.13."""
    commit: str
    """The commit of the ref."""
    tree: str
    """The commit's tree."""
    entries: Mapping[str, ManifestEntry]
    """By path, with `/`."""

    def __post_init__(self) -> None:
        found = tree_id(self.entries)
        if found != self.tree:
            raise SyncRefused(
                f"The manifest of {self.ref} was altered: its files give tree {found}, its head says {self.tree}.",
                needed="the manifest as it was committed",
                fix="git log -p -- light_compute_project/upstream .litgpt",
            )

    def render(self) -> str:
        """The text form."""
        head = f"# ref {self.ref}\n# commit {self.commit}\n# tree {self.tree}\n"
        lines = (f"{e.mode} {e.blob} {_quoted(path)}\n" for path, e in sorted(self.entries.items()))
        return head + "".join(lines)


def parse_manifest(text: str, *, source: str) -> Manifest:
    """Read the text form.

    Args:
        text: The file's content.
        source: Its name, for messages.

    Raises:
        SyncRefused: A line does not have the form above, or the files do not match the tree id.
    """
    head: dict[str, str] = {}
    entries: dict[str, ManifestEntry] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if found := re.fullmatch(r"# (ref|commit|tree) (\S+)", line):
            head[found[1]] = found[2]
        elif found := re.fullmatch(r"(\d{6}) ([0-9a-f]{40}) (.+)", line):
            entries[_unquoted(found[3])] = ManifestEntry(mode=found[1], blob=found[2])
        else:
            raise SyncRefused(f"{source}:{number} is not a line of a manifest: {line[:80]!r}")
    if set(head) != {"ref", "commit", "tree"}:
        raise SyncRefused(f"{source} does not name its ref, commit and tree.")
    return Manifest(ref=head["ref"], commit=head["commit"], tree=head["tree"], entries=entries)


def read_manifest(path: Path) -> Manifest:
    """The manifest in a file. Raises SyncRefused if it is corrupted, OSError if it does not exist."""
    return parse_manifest(path.read_text(encoding="utf-8"), source=path.name)


def manifest_of_commit(git: Git, commit: str, *, ref: str) -> Manifest:
    """The manifest of a commit that git has."""
    tree = git.text("rev-parse", "--verify", f"{commit}^{{tree}}")
    return Manifest(ref=ref, commit=commit, tree=tree, entries=entries_of_tree(git, tree))


def entries_of_tree(git: Git, tree: str) -> dict[str, ManifestEntry]:
    """Every file of a tree or commit, by path."""
    entries = {}
    for line in git.fields("ls-tree", "-r", "-z", "--full-tree", tree):
        meta, path = line.split("\t", 1)
        mode, _, blob = meta.split(" ")
        entries[path] = ManifestEntry(mode=mode, blob=blob)
    return entries


def blob_id(content: bytes) -> str:
    """git's id of a file's bytes."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def tree_id(entries: Mapping[str, ManifestEntry]) -> str:
    """git's id of the tree with exactly these files."""
    here: dict[bytes, tuple[str, bytes]] = {}
    folders: dict[str, dict[str, ManifestEntry]] = {}
    for path, entry in entries.items():
        name, slash, rest = path.partition("/")
        if slash:
            folders.setdefault(name, {})[rest] = entry
        else:
            here[encode(name)] = (entry.mode, bytes.fromhex(entry.blob))
    for name, content in folders.items():
        here[encode(name)] = ("40000", bytes.fromhex(tree_id(content)))
    # git sorts a folder as if its name ended with a slash
    order = sorted(here.items(), key=lambda item: item[0] + (b"/" if item[1][0] == "40000" else b""))
    body = b"".join(mode.encode() + b" " + name + b"\0" + identity for name, (mode, identity) in order)
    return hashlib.sha1(b"tree %d\0" % len(body) + body, usedforsecurity=False).hexdigest()


def _quoted(path: str) -> str:
    plain = path.isprintable() and not path.startswith('"') and path == path.strip()
    return path if plain else json.dumps(path)


def _unquoted(text: str) -> str:
    return str(json.loads(text)) if text.startswith('"') else text


def path_text(path: bytes) -> str:
    """A file system path as text, as in manifests."""
    return decode(path)
