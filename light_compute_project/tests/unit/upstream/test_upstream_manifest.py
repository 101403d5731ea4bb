"""Manifests, placement and verification as pure functions; the installed wheel is the pinned release, byte for byte."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from litgpt_core.upstream.manifest import Manifest, ManifestEntry, blob_id, parse_manifest, read_manifest, tree_id
from litgpt_core.upstream.pin import Installed, installed_package, pinned_tag, pinned_version
from litgpt_core.upstream.placement import (
    MANIFEST,
    RECORD,
    Synced,
    case_twins,
    clashes,
    foreign_changes,
    leaving_link,
    parse_record,
    placed,
)
from litgpt_core.upstream.preview import path_changes
from litgpt_core.upstream.refusal import SyncRefused
from litgpt_core.upstream.remote import manifest_path, newest_tags
from litgpt_core.upstream.verify import verify, verify_package

ROOT = Path(__file__).resolve().parents[4]
FILE = ManifestEntry(mode="100644", blob=blob_id(b"hello\n"))


def manifest(*paths: str) -> Manifest:
    entries = dict.fromkeys(paths, FILE)
    return Manifest(ref="v1.0.0", commit="1" * 40, tree=tree_id(entries), entries=entries)


# ---- the pinned release ----


def test_the_installed_litgpt_is_the_pinned_release_byte_for_byte() -> None:
    if installed_package().version != pinned_version(ROOT):
        pytest.skip(f"litgpt {installed_package().version} is installed, not the pinned version")
    result = verify_package(ROOT)
    assert result.good, result.render()
    assert result.files == 60, "the contract page counted 60 files in the wheel of 0.5.13"


def test_the_manifests_that_we_keep_give_the_trees_of_their_tags() -> None:
    kept = {path.name: read_manifest(path) for path in (ROOT / "light_compute_project/upstream").glob("manifest-*.txt")}
    assert kept["manifest-v0.5.13.txt"].commit == "26857050fe3ff627cd714fe92f5838f51a3d5efa"
    assert kept["manifest-v0.5.13.txt"].tree == "f96431ac28328b3e8c3bf7b79ae5c4793ee93ffe"
    assert kept["manifest-v0.5.12.txt"].commit == "df94ee2cae47d8d2fb20815c175e98fd1f64a27a"
    assert {f"manifest-{m.ref}.txt" for m in kept.values()} == set(kept)
    assert manifest_path(ROOT, pinned_tag(ROOT)).name in kept


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small checkout, and a small installed litgpt."""
    package = tmp_path / "site" / "litgpt"
    (package / "data").mkdir(parents=True)
    for name in ("__init__.py", "data/base.py"):
        (package / name).write_bytes(b"hello\n")
    root = tmp_path / "checkout"
    (root / "light_compute_project/upstream").mkdir(parents=True)
    (root / "pyproject.toml").write_text('[project]\ndependencies = ["litgpt==1.0.0"]\n')
    text = manifest("litgpt/__init__.py", "litgpt/data/base.py", "README.md").render()
    (root / "light_compute_project/upstream/manifest-v1.0.0.txt").write_text(text)
    found = Installed(version="1.0.0", folder=package, origin="")
    monkeypatch.setattr("litgpt_core.upstream.verify.installed_package", lambda: found)
    return root


def test_every_changed_missing_and_extra_file_is_named(checkout: Path) -> None:
    assert [result.good for result in verify(checkout)] == [True]
    package = checkout.parent / "site" / "litgpt"
    (package / "__pycache__").mkdir()
    (package / "__pycache__/x.pyc").write_bytes(b"")
    assert verify_package(checkout).good, "byte code that Python leaves behind is no difference"
    (package / "__init__.py").write_bytes(b"hello\r\n")
    (package / "data/base.py").unlink()
    (package / "data/added.pyc").write_bytes(b"")
    result = verify_package(checkout)
    assert [(item.kind, item.path) for item in result.differences] == [
        ("changed", "litgpt/__init__.py"), ("extra", "litgpt/data/added.pyc"), ("missing", "litgpt/data/base.py")
    ]  # fmt: skip
    text = result.render()
    assert text.startswith("FAIL") and "line endings only" in text and "uv sync --reinstall-package litgpt" in text


def test_another_version_a_missing_manifest_and_a_loose_pin_fail(checkout: Path) -> None:
    (checkout / "pyproject.toml").write_text('[project]\ndependencies = ["litgpt==1.0.1"]\n')
    assert "--record v1.0.1" in verify(checkout)[0].render()
    shutil.copyfile(
        checkout / "light_compute_project/upstream/manifest-v1.0.0.txt",
        checkout / "light_compute_project/upstream/manifest-v1.0.1.txt",
    )
    assert "pyproject.toml pins 1.0.1" in verify(checkout)[0].render()
    (checkout / "pyproject.toml").write_text('[project]\ndependencies = ["litgpt>=1.0.0"]\n')
    assert "does not pin" in verify(checkout)[0].render()


def test_an_altered_manifest_is_refused(checkout: Path) -> None:
    path = checkout / "light_compute_project/upstream/manifest-v1.0.0.txt"
    good = path.read_text()
    for bad in (
        good.replace(FILE.blob, "0" * 40, 1), good.replace("README.md", "README.mdx"), good + "one line more\n",
        good.replace("100644", "100755", 1), good.replace("# tree", "# trees"), "",
    ):  # fmt: skip
        path.write_text(bad)
        assert not verify(checkout)[0].good


# ---- text form and ids ----


def test_ids_are_gits() -> None:
    assert blob_id(b"") == "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"
    assert tree_id({}) == "4b825dc642cb6eb9a060e54bf8d69288fbee4904"


NAME = st.text(st.characters(blacklist_characters="/\0", blacklist_categories=()), min_size=1, max_size=6)
PATHS = st.lists(st.lists(NAME, min_size=1, max_size=3).map("/".join), max_size=8, unique=True)


@given(PATHS)
def test_any_path_survives_the_text_form(paths: list[str]) -> None:
    files = [p for p in paths if not any(other.startswith(p + "/") for other in paths)]
    try:
        "".join(files).encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return  # no path of any file system decodes to that
    made = manifest(*files)
    assert parse_manifest(made.render(), source="text") == made


# ---- placement ----


def test_paths_of_upstreams_files() -> None:
    given_paths = (
        "README.md",
        "LICENSE",
        ".gitignore",
        "pyproject.toml",
        "LICENSE.md",
        "conftest.py",
        "litgpt/README.md",
    )
    given_paths += (".github/workflows/x.yml", ".lightning/y", "tests/conftest.py", "CITATION.cff")
    usual = ["CITATION.cff", "LICENSE.md", "litgpt/README.md", "tests/conftest.py"]
    # what takes over make, pytest, git, python or an editor from the root folder
    unknown = ("GNUmakefile", "makefile", "pytest.toml", ".pytest.ini", ".python-versions", ".lfsconfig", "torch.py")
    unknown += (".vscode/tasks.json", "sitecustomize.py", "torch/__init__.py", ".envrc", "litgpt", "README.md.sh")
    given_paths += unknown
    aside = [
        *(".litgpt/.gitignore", ".litgpt/LICENSE", ".litgpt/README.md", ".litgpt/conftest.py"),
        *(".litgpt/pyproject.toml", *(f".litgpt/{path}" for path in unknown)),
    ]
    assert sorted(placed(manifest(*given_paths), with_ci=False)) == sorted([*aside, *usual])
    ci = [".github/workflows/x.yml", ".lightning/y"]
    assert sorted(placed(manifest(*given_paths), with_ci=True)) == sorted([*aside, *usual, *ci])


@pytest.mark.parametrize(
    ("path", "target", "leaves"),
    [
        ("tutorials/link.md", "with spaces.md", False),
        ("litgpt/a/b.py", "../../tests/c.py", False),
        ("a", "b/c", False),
        ("litgpt/leak", "/etc/passwd", True),
        ("litgpt/leak", "../../outside", True),
        ("leak", "..", True),
        ("litgpt/leak", "here/../../..", True),  # `here` may be a link to the folder itself
        ("litgpt/leak", "../.git/config", True),
        ("litgpt/leak", "../.GIT/hooks", True),
    ],
)
def test_links_that_may_leave_the_tree(path: str, target: str, leaves: bool) -> None:
    assert leaving_link(path, target) is leaves


def test_the_record_lists_the_synced_files() -> None:
    synced = Synced(manifest=manifest("litgpt/a.py", ".github/b"), with_ci=True)
    record = synced.record()
    assert (
        parse_record(record[RECORD].decode(), manifest=parse_manifest(record[MANIFEST].decode(), source="")) == synced
    )
    assert set(synced.entries()) == {"litgpt/a.py", ".github/b", RECORD, MANIFEST}
    assert foreign_changes(synced.entries(), synced=synced) == []
    with pytest.raises(SyncRefused, match="do not fit"):
        parse_record(record[RECORD].decode(), manifest=manifest("litgpt/a.py"))


@pytest.mark.parametrize(
    ("brought", "ours", "clash"),
    [
        ("a/b", "a/b", True), ("a", "a/b", True), ("a/b", "a", True), ("a/B", "a/b", True), ("A/c", "a/b", True),
        ("a/\u00e9", "a/e\u0301", True), ("stra\u00dfe", "STRASSE", True), ("a/c", "a/b", False), ("ab", "a/b", False),
        ("a.b/c", "a/b", False),
    ],
)  # fmt: skip
def test_conflicting_paths(brought: str, ours: str, clash: bool) -> None:
    assert bool(clashes([brought], ours=[ours])) is clash


def test_upstream_paths_that_differ_only_in_case() -> None:
    assert case_twins(["a/b", "a/c", "A.txt"]) == []
    assert case_twins(["a/b", "A/c"]) == ["a/b: differs from A in case only"]


def test_path_changes_distinguish_renames_from_new_files() -> None:
    other = ManifestEntry(mode="100755", blob="2" * 40)
    rows = path_changes(
        {"a": FILE, "b": other, "c": FILE}, new={"d": FILE, "b": FILE, "e": ManifestEntry(mode="1", blob="3" * 40)}
    )
    assert rows == ["M  b", "D  c", "R  a -> d", "A  e"]


def test_newest_tags_are_sorted_as_numbers() -> None:
    refs = dict.fromkeys(["refs/tags/v0.5.9", "refs/tags/v0.5.10", "refs/tags/v0.5.10rc1", "refs/heads/v9.0.0"], "")
    assert newest_tags(refs) == ["v0.5.10", "v0.5.9"]
