from __future__ import annotations

import sys
from pathlib import Path

import pytest

from litgpt_core.core.packages import installed_packages, packages_sha256, record_sha256

OWN = ["thing/__init__.py,sha256=aaa,12", "thing/core.py,sha256=bbb,34", "thing-1.0.dist-info/METADATA,sha256=ccc,5"]
BY_PIP = [
    "../../../bin/thing,sha256=ppp,200",
    *OWN,
    "thing/__pycache__/core.cpython-311.pyc,,",
    "thing-1.0.dist-info/INSTALLER,sha256=zzz,4",
    "thing-1.0.dist-info/RECORD,,",
]
BY_UV = [
    *reversed(OWN),
    "../../../bin/thing,sha256=uuu,180",
    "thing-1.0.dist-info/INSTALLER,sha256=yyy,2",
    "thing-1.0.dist-info/REQUESTED,sha256=xxx,0",
    "thing-1.0.dist-info/uv_cache.json,sha256=www,90",
    "thing-1.0.dist-info/RECORD,,",
]


def test_the_hash_is_the_wheels_not_the_installers() -> None:
    assert record_sha256(BY_PIP) == record_sha256(BY_UV) == record_sha256(OWN)


def test_another_file_is_another_hash() -> None:
    changed = [line.replace("sha256=bbb", "sha256=bbc") for line in BY_PIP]
    assert record_sha256(changed) != record_sha256(BY_PIP)
    assert record_sha256(OWN[:2]) != record_sha256(OWN)


def test_what_python_finds_is_listed_with_version_and_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "Some_Thing-1.5.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: Some_Thing\nVersion: 1.5\n\nVersion: 9 in the text\n")
    (info / "RECORD").write_text("\n".join(OWN))
    bare = tmp_path / "bare-2.dist-info"
    bare.mkdir()
    (bare / "METADATA").write_text("Name: bare\nVersion: 2\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    found = installed_packages()
    assert found["some-thing"] == {"version": "1.5", "sha256": record_sha256(OWN)}
    assert found["bare"] == {"version": "2", "sha256": None}
    assert len(str(found["torch"]["sha256"])) == 64 and list(found) == sorted(found)


def test_one_hash_for_all_changes_with_each() -> None:
    packages = {"a": {"version": "1", "sha256": "x"}, "b": {"version": "2", "sha256": None}}
    assert packages_sha256(packages) == packages_sha256(dict(reversed(packages.items())))
    assert packages_sha256(packages) != packages_sha256({**packages, "b": {"version": "2.1", "sha256": None}})
