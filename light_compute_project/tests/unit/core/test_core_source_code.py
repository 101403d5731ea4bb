from __future__ import annotations

import hashlib
import json
import os
import subprocess
from pathlib import Path

import pytest

from litgpt_core.core.source_code import code_state, encode, package_files


def git(folder: Path, *arguments: str, stdin: str = "") -> str:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    kept |= {"HOME": str(folder), "GIT_CONFIG_NOSYSTEM": "1"}
    identity = ("-c", "user.name=t", "-c", "user.email=t@t", "-c", "commit.gpgsign=false")
    done = subprocess.run(
        ["git", "-C", str(folder), *identity, *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        errors="replace",
        env=kept,
        check=True,
    )
    return done.stdout


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A checkout whose project folder has one file in each part."""
    top = tmp_path / "checkout"
    for name in ("src/core.py", "scripts/train.py", "configs/train.yaml", "docs/page.md"):
        file = top / "light_compute_project" / name
        file.parent.mkdir(parents=True)
        file.write_text(f"first line of {name}\n")
    (top / ".gitignore").write_text("ignored.py\n")
    git(tmp_path, "init", "-q", str(top))
    git(top, "add", "-A")
    git(top, "commit", "-qm", "first")
    return top / "light_compute_project"


def test_a_clean_checkout_has_no_patch(project: Path) -> None:
    state = code_state(project)
    assert state.diff == "" and state.facts["diff_sha256"] is None and state.facts["untracked"] == []


def test_the_patch_gives_the_code_back_on_a_clean_checkout(project: Path, tmp_path: Path) -> None:
    (project / "src" / "core.py").write_text("another line, with an umlaut: ä\n")
    (project / "scripts" / "train.py").unlink()
    (project / "src" / "new.py").write_text("new = 1\nno end of line")
    (project / "src" / "empty.py").write_text("")
    before = git(project, "status", "--porcelain")
    state = code_state(project)
    assert git(project, "status", "--porcelain") == before, "the person's index stays as it is"
    clean = tmp_path / "clean"
    git(tmp_path, "clone", "-q", str(project.parent), str(clean))
    git(clean, "apply", "-", stdin=state.diff)
    for name in ("src/core.py", "src/new.py", "src/empty.py"):
        assert (clean / "light_compute_project" / name).read_bytes() == (project / name).read_bytes()
    assert not (clean / "light_compute_project" / "scripts" / "train.py").exists()
    assert state.facts["diff_sha256"] == hashlib.sha256(state.diff.encode()).hexdigest()
    assert len(state.facts["changed"]) == 2 and len(state.facts["untracked"]) == 2


def test_files_that_are_not_utf8_come_back_too(project: Path, tmp_path: Path) -> None:
    (project / "src" / "latin.py").write_bytes(b"# gr\xfc\xdfe\r\n")
    state = code_state(project)
    clean = tmp_path / "clean"
    git(tmp_path, "clone", "-q", str(project.parent), str(clean))
    (tmp_path / "code.diff").write_bytes(encode(state.diff))
    git(clean, "apply", str(tmp_path / "code.diff"))
    assert (clean / "light_compute_project" / "src" / "latin.py").read_bytes() == b"# gr\xfc\xdfe\r\n"
    assert state.facts["diff_sha256"] == hashlib.sha256((tmp_path / "code.diff").read_bytes()).hexdigest()
    json.dumps(state.facts, ensure_ascii=False).encode("utf-8")


def test_only_source_of_ours_is_taken(project: Path) -> None:
    (project / "docs" / "page.md").write_text("changed")
    (project / "src" / ".env").write_text("KEY=1")
    (project / "src" / "ignored.py").write_text("x = 1")
    (project / "src" / "weights.pth").write_bytes(b"\0" * 10)
    (project / "src" / "huge.py").write_text("#" * 600_000)
    (project.parent / "elsewhere.py").write_text("x = 1")
    assert code_state(project).diff == ""


def test_outside_a_checkout_there_is_no_patch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    for part in ("src", "scripts", "configs"):
        (tmp_path / part).mkdir()
    assert code_state(tmp_path).diff == ""
    assert code_state(tmp_path / "src").diff == ""


def test_a_changed_source_file_has_another_hash(tmp_path: Path) -> None:
    (tmp_path / "room").mkdir()
    (tmp_path / "room" / "a.py").write_text("1")
    (tmp_path / "b.cpp").write_text("1")
    (tmp_path / "notes.md").write_text("1")
    before = package_files(tmp_path)
    assert list(before) == ["b.cpp", "room/a.py"]
    (tmp_path / "room" / "a.py").write_text("2")
    after = package_files(tmp_path)
    assert after["b.cpp"] == before["b.cpp"] and after["room/a.py"] != before["room/a.py"]
