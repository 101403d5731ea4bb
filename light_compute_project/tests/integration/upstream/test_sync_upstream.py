"""Bringing upstream's tree in: what the merge commit holds, again and again, in every kind of clone."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from litgpt_core.upstream.git import Git
from litgpt_core.upstream.manifest import ManifestEntry, manifest_of_commit, parse_manifest, read_manifest
from litgpt_core.upstream.placement import MANIFEST, RECORD
from litgpt_core.upstream.preview import preview
from litgpt_core.upstream.refusal import SyncRefused
from litgpt_core.upstream.sync import sync, undo
from litgpt_core.upstream.verify import verify_tree

KEPT = ("README.md", "pyproject.toml", ".gitignore", "LICENSE")


def check_tree(lab: Any, tag: str, *, ours: Any = None, with_ci: bool = False) -> None:
    """HEAD's tree is ours as it was plus upstream's at `tag`, and the work tree shows exactly that."""
    repository = ours or lab.ours
    expected = dict(repository.first)
    for path, entry in lab.upstream.files(tag).items():
        if with_ci or path.split("/")[0] not in (".github", ".lightning"):
            expected[f".litgpt/{path}" if path in KEPT else path] = entry
    found = repository.files()
    assert found.pop(RECORD) and found.pop(MANIFEST)
    assert found == expected
    assert repository.git("status", "--porcelain") == ""
    assert verify_tree(repository.root).render().startswith("ok")


@pytest.fixture
def repositories(lab: Any) -> Any:
    lab.ours.first = lab.ours.files()
    return lab


def test_a_first_sync_is_a_merge_of_our_head_and_upstreams_commit(repositories: Any) -> None:
    lab = repositories
    before = lab.ours.git("rev-parse", "HEAD")
    done = sync(lab.ours.root, "v0.0.1", url=lab.url)
    assert lab.ours.git("rev-list", "--parents", "-1", "HEAD").split() == [
        done.commit, before, lab.upstream.git("rev-parse", "v0.0.1^{commit}")
    ]  # fmt: skip
    check_tree(lab, "v0.0.1")
    assert (lab.ours.root / "LICENSE").read_text() == "our licence\n"
    assert (lab.ours.root / ".litgpt" / "LICENSE").read_text() == "upstream's licence\n"
    assert lab.ours.git("for-each-ref", "--format=%(refname)") == "refs/heads/main\nrefs/litgpt/tags/v0.0.1"
    assert "first release" in lab.ours.git("log", "--format=%s", "--", "litgpt/model.py")


def test_sync_to_newer_older_and_newer_versions(repositories: Any) -> None:
    lab = repositories
    for tag in ("v0.0.1", "v0.0.2", "v0.0.1", "v0.0.2"):
        sync(lab.ours.root, tag, url=lab.url)
        check_tree(lab, tag)
    assert (lab.ours.root / "LICENSE").read_text() == "our licence\n"
    assert (lab.ours.root / "LICENSE.md").read_text() == "upstream's licence\n"
    assert not (lab.ours.root / ".litgpt" / "LICENSE").exists()
    if os.name == "posix":
        assert os.access(lab.ours.root / "extensions/tool/run.sh", os.X_OK)
        assert (lab.ours.root / "tutorials/link.md").is_symlink()


def test_the_same_ref_twice_makes_one_commit(repositories: Any) -> None:
    lab = repositories
    first = sync(lab.ours.root, "v0.0.2", url=lab.url)
    before = lab.ours.snapshot()
    again = sync(lab.ours.root, "v0.0.2", url=lab.url)
    assert again.commit == first.commit and lab.ours.snapshot() == before


def test_our_work_between_syncs_stays(repositories: Any) -> None:
    lab = repositories
    sync(lab.ours.root, "v0.0.1", url=lab.url)
    lab.ours.commit({"README.md": "our newer page\n", "light_compute_project/more.py": "z = 3\n", "LICENSE": None})
    lab.ours.first |= {p: e for p, e in lab.ours.files().items() if p in ("README.md", "light_compute_project/more.py")}
    del lab.ours.first["LICENSE"]
    sync(lab.ours.root, "v0.0.2", url=lab.url)
    check_tree(lab, "v0.0.2")


def test_a_reverted_sync_can_be_repeated(repositories: Any) -> None:
    lab = repositories
    done = sync(lab.ours.root, "v0.0.1", url=lab.url)
    lab.ours.git("revert", "-m", "1", "--no-edit", done.commit)
    assert lab.ours.files() == lab.ours.first
    sync(lab.ours.root, "v0.0.1", url=lab.url)
    check_tree(lab, "v0.0.1")


def test_sync_after_a_squash(repositories: Any) -> None:
    lab = repositories
    lab.ours.git("switch", "--quiet", "-c", "work")
    sync(lab.ours.root, "v0.0.1", url=lab.url)
    lab.ours.git("switch", "--quiet", "main")
    lab.ours.git("merge", "--quiet", "--squash", "work")
    lab.ours.git("commit", "--quiet", "-m", "squashed")
    sync(lab.ours.root, "v0.0.2", url=lab.url)
    check_tree(lab, "v0.0.2")


def test_a_shallow_clone_and_a_linked_work_tree(repositories: Any) -> None:
    lab = repositories
    sync(lab.ours.root, "v0.0.1", url=lab.url)
    shallow = type(lab.ours)(lab.folder / "shallow")
    subprocess.run(["git", "clone", "--quiet", "--depth", "1", lab.ours.root.as_uri(), str(shallow.root)], check=True)
    lab.ours.git("worktree", "add", "--quiet", "-b", "beside", str(lab.folder / "beside"))
    main = lab.ours.snapshot()
    for repository in (shallow, type(lab.ours)(lab.folder / "beside")):
        repository.first = lab.ours.first
        sync(repository.root, "v0.0.2", url=lab.url)
        check_tree(lab, "v0.0.2", ours=repository)
    after = lab.ours.snapshot()
    assert {k: v for k, v in after.items() if k != "refs"} == {k: v for k, v in main.items() if k != "refs"}


def test_upstreams_workflows_are_left_out_by_default(repositories: Any) -> None:
    lab = repositories
    sync(lab.ours.root, "v0.0.1", url=lab.url)
    assert not (lab.ours.root / ".github/workflows/publish-pkg.yml").exists()
    sync(lab.ours.root, "v0.0.1", url=lab.url, with_ci=True)
    check_tree(lab, "v0.0.1", with_ci=True)
    sync(lab.ours.root, "v0.0.2", url=lab.url)
    check_tree(lab, "v0.0.2")


def test_an_upstream_branch_can_be_synced(repositories: Any) -> None:
    lab = repositories
    sync(lab.ours.root, "main", url=lab.url)
    check_tree(lab, "main")
    assert "refs/litgpt/heads/main" in lab.ours.git("for-each-ref", "--format=%(refname)")


def test_plain_git_merges_upstreams_next_commit_afterwards(repositories: Any) -> None:
    lab = repositories
    sync(lab.ours.root, "v0.0.2", url=lab.url)
    lab.release("v0.0.4", {"litgpt/model.py": "class GPT:\n    pass\n"})
    lab.ours.git("pull", "--quiet", "--no-rebase", "--no-edit", lab.url, "refs/tags/v0.0.4")
    assert (lab.ours.root / "litgpt/model.py").read_text() == "class GPT:\n    pass\n"
    assert (lab.ours.root / "LICENSE").read_text() == "our licence\n"


def test_undo_restores_the_previous_state(repositories: Any) -> None:
    lab = repositories
    sync(lab.ours.root, "v0.0.1", url=lab.url)
    refs, head, files = lab.ours.git("for-each-ref"), lab.ours.git("rev-parse", "HEAD"), lab.ours.files()
    sync(lab.ours.root, "v0.0.2", url=lab.url)
    lab.ours.write({"README.md": "an edit that is not committed\n"})
    assert undo(lab.ours.root) == ("v0.0.2", head)
    assert lab.ours.git("for-each-ref") == refs and lab.ours.files() == files
    assert (lab.ours.root / "README.md").read_text() == "an edit that is not committed\n"
    assert lab.ours.git("status", "--porcelain") == "M README.md" or lab.ours.git("diff", "--name-only") == "README.md"


def test_a_commit_is_made_without_a_configured_name(repositories: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = repositories
    (Path(os.environ["HOME"]) / ".gitconfig").write_text("")
    done = sync(lab.ours.root, "v0.0.1", url=lab.url)
    assert "light-compute sync" in lab.ours.git("log", "-1", "--format=%an")
    assert "git config user.name" in done.notes[0]
    monkeypatch.setenv("GIT_COMMITTER_NAME", "From Environment")
    monkeypatch.setenv("GIT_COMMITTER_EMAIL", "env@example.invalid")
    monkeypatch.setenv("GIT_AUTHOR_NAME", "From Environment")
    monkeypatch.setenv("GIT_AUTHOR_EMAIL", "env@example.invalid")
    assert sync(lab.ours.root, "v0.0.2", url=lab.url).notes == ()
    assert lab.ours.git("log", "-1", "--format=%cn") == "From Environment"


def test_the_users_environment_and_settings_have_no_effect(repositories: Any, monkeypatch: Any) -> None:
    lab = repositories
    hooks = lab.folder / "hooks"
    hooks.mkdir()
    for name in ("post-merge", "reference-transaction", "pre-merge-commit"):
        (hooks / name).write_text("#!/bin/sh\nexit 1\n")
        (hooks / name).chmod(0o755)
    for setting in (
        f"core.hooksPath={hooks}", "core.quotePath=true", "color.ui=always", "merge.ff=false", "merge.autoStash=true",
        "merge.verifySignatures=true", "commit.gpgSign=true", "status.showUntrackedFiles=no", "log.showSignature=true",
        "diff.mnemonicPrefix=true", "diff.renames=copies", "status.relativePaths=true", "core.pager=false",
    ):  # fmt: skip
        lab.ours.git("config", *setting.split("=", 1))
    for name, value in {"GIT_DIR": "/nowhere", "GIT_WORK_TREE": "/nowhere", "GIT_INDEX_FILE": "/nowhere/index"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    sync(lab.ours.root, "v0.0.2", url=lab.url)
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(name)
    check_tree(lab, "v0.0.2")


def test_the_manifest_of_a_commit_survives_its_text_form(lab: Any) -> None:
    git = Git(root=lab.upstream.root)
    for tag in ("v0.0.1", "v0.0.2"):
        manifest = manifest_of_commit(git, f"{tag}^{{commit}}", ref=tag)
        assert parse_manifest(manifest.render(), source="text") == manifest
        assert manifest.tree == lab.upstream.git("rev-parse", f"{tag}^{{tree}}")
        assert set(manifest.entries) == set(lab.upstream.files(tag))
    assert manifest.entries["extensions/tool/run.sh"] == ManifestEntry(
        mode="100755", blob=lab.upstream.git("rev-parse", "v0.0.2:extensions/tool/run.sh")
    )


def test_a_synced_tree_is_verified_without_git(repositories: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = repositories
    sync(lab.ours.root, "v0.0.1", url=lab.url)
    monkeypatch.setenv("PATH", "")
    root = lab.ours.root
    (root / "litgpt/model.py").write_text("changed\n")
    (root / "config_hub/tiny.yaml").unlink()
    (root / "litgpt/added.py").write_text("new\n")
    (root / "litgpt/__pycache__").mkdir()
    (root / "litgpt/__pycache__/model.pyc").write_bytes(b"left by python")
    (root / "litgpt/windows.txt").write_bytes(b"one\ntwo\n")
    found = {(item.kind, item.path) for item in verify_tree(root).differences}
    assert found == {
        ("changed", "litgpt/model.py"), ("changed", "litgpt/windows.txt"),
        ("missing", "config_hub/tiny.yaml"), ("extra", "litgpt/added.py"),
    }  # fmt: skip


def test_an_altered_record_is_refused(repositories: Any) -> None:
    lab = repositories
    sync(lab.ours.root, "v0.0.1", url=lab.url)
    path = lab.ours.root / MANIFEST
    digits = read_manifest(path).entries["litgpt/model.py"].blob
    path.write_text(path.read_text(encoding="utf-8").replace(digits, "0" * 40), encoding="utf-8")
    with pytest.raises(SyncRefused, match="altered"):
        verify_tree(lab.ours.root)


def test_a_dry_run_shows_log_paths_and_names_and_changes_nothing(repositories: Any) -> None:
    lab = repositories
    sync(lab.ours.root, "v0.0.1", url=lab.url)
    before = lab.ours.snapshot()
    text, refusal = preview(lab.ours.root, "v0.0.2", url=lab.url)
    assert refusal is None and lab.ours.snapshot() == before
    assert "second release" in text
    for row in (
        "R  .litgpt/LICENSE -> LICENSE.md", "D  tutorials/goes.md", "A  litgpt/new file.py",
        "M  extensions/tool/run.sh", "A  extensions/was_a_file/inside.py",
    ):  # fmt: skip
        assert f"\n  {row}\n" in text
    assert "signature changed litgpt.model.GPT\n" in text
    assert "- forward(self, idx, input_pos=None)" in text
    assert "+ forward(self, idx, *, input_pos=None, lm_head_chunk_size=0)" in text
    assert "used in light_compute_project/src/litgpt_core/model.py:1" in text


def test_a_dry_run_in_a_dirty_tree_shows_the_refusal(repositories: Any) -> None:
    lab = repositories
    lab.ours.write({"Makefile": "edited\n"})
    text, refusal = preview(lab.ours.root, "v0.0.1", url=lab.url)
    assert "Paths: " in text and refusal is not None and "Makefile" in str(refusal)
