"""Every reason not to sync: one message that says what to type, and nothing was changed, byte for byte."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from litgpt_core.upstream.manifest import manifest_of_commit
from litgpt_core.upstream.placement import MANIFEST, RECORD
from litgpt_core.upstream.refusal import SyncRefused
from litgpt_core.upstream.state import open_repository
from litgpt_core.upstream.sync import sync, undo

FAR = "v0.0.2"


def refused(lab: Any, ref: str = FAR, *, says: tuple[str, ...], url: str | None = None, with_ci: bool = False) -> None:
    before, objects = lab.ours.snapshot(), lab.upstream.snapshot()
    with pytest.raises(SyncRefused) as caught:
        sync(lab.ours.root, ref, url=url or lab.url, with_ci=with_ci)
    for part in says:
        assert part in str(caught.value), f"{part!r} not in:\n{caught.value}"
    assert lab.ours.snapshot() == before, "a refusal changed something"
    assert lab.upstream.snapshot() == objects


# ---- the state of our repository ----


@pytest.mark.parametrize("staged", [False, True])
def test_changed_tracked_files(lab: Any, staged: bool) -> None:
    lab.ours.write({"Makefile": "edited\n"})
    if staged:
        lab.ours.git("add", "Makefile")
    refused(lab, says=("Makefile", "git stash"))


def test_a_file_added_to_the_index(lab: Any) -> None:
    lab.ours.write({"new.txt": "x"})
    lab.ours.git("add", "new.txt")
    refused(lab, says=("new.txt",))


def test_a_removed_tracked_file(lab: Any) -> None:
    lab.ours.write({"Makefile": None})
    refused(lab, says=("Makefile",))


def test_a_detached_head(lab: Any) -> None:
    lab.ours.git("checkout", "--quiet", "--detach")
    refused(lab, says=("detached", "git switch"))


def test_a_branch_without_a_commit(lab: Any) -> None:
    lab.ours.git("checkout", "--quiet", "--orphan", "empty")
    refused(lab, says=("no commit",))


def conflict(lab: Any) -> str:
    """Two branches that change the same line; the name of the other one."""
    lab.ours.git("switch", "--quiet", "-c", "other")
    lab.ours.commit({"Makefile": "one\n"})
    lab.ours.git("switch", "--quiet", "main")
    lab.ours.commit({"Makefile": "two\n"})
    return "other"


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (("merge", "other"), "git merge --abort"),
        (("rebase", "other"), "git rebase --abort"),
        (("cherry-pick", "other"), "git cherry-pick --abort"),
        (("revert", "--no-edit", "HEAD~1"), "git revert --abort"),
    ],
    ids=["merge", "rebase", "cherry-pick", "revert"],
)
def test_an_operation_in_progress(lab: Any, command: tuple[str, ...], says: str) -> None:
    conflict(lab)
    if command[0] == "revert":
        lab.ours.commit({"Makefile": "three\n"})
        lab.ours.commit({"Makefile": "four\n"})
    stopped = subprocess.run(["git", "-C", str(lab.ours.root), *command], capture_output=True)
    assert stopped.returncode, "it was to stop at a conflict"
    refused(lab, says=("in progress", says))


def test_a_bisect_and_a_merge_without_a_conflict_in_progress(lab: Any) -> None:
    conflict(lab)
    lab.ours.git("bisect", "start")
    refused(lab, says=("bisect", "git bisect reset"))
    lab.ours.git("bisect", "reset")
    lab.ours.git("merge", "--quiet", "--no-commit", "--no-ff", "-X", "ours", "other")
    refused(lab, says=("merge is in progress",))


def test_another_git_process_is_running(lab: Any) -> None:
    (lab.ours.root / ".git/index.lock").write_bytes(b"")
    refused(lab, says=("index.lock",))


@pytest.mark.parametrize("flag", ["--skip-worktree", "--assume-unchanged"])
def test_files_whose_changes_git_ignores(lab: Any, flag: str) -> None:
    lab.ours.git("update-index", flag, "Makefile")
    lab.ours.write({"Makefile": "edited behind git's back\n"})
    refused(lab, says=("Makefile", "sparse-checkout"))


def test_a_folder_that_is_no_checkout_of_ours(lab: Any) -> None:
    plain = lab.folder / "plain"
    shutil.copytree(lab.ours.root, plain, ignore=shutil.ignore_patterns(".git"))
    for folder in (plain, lab.ours.root / "light_compute_project", lab.upstream.root):
        before = lab.ours.snapshot()
        with pytest.raises(SyncRefused):
            sync(folder, FAR, url=lab.url)
        assert lab.ours.snapshot() == before


# ---- the remote ----


def test_an_unknown_ref_names_the_newest_tags(lab: Any) -> None:
    refused(lab, "v9.9.9", says=("v9.9.9", "v0.0.2", "--ref v0.0.2"))


@pytest.mark.parametrize("name", ["", "-x", "a..b", "v0 1", "v*", "--upload-pack=touch x"])
def test_a_name_that_no_tag_can_have(lab: Any, name: str) -> None:
    refused(lab, name, says=("cannot be the name",))


def test_an_unreachable_remote(lab: Any) -> None:
    refused(lab, says=("cannot be read", "--url"), url=str(lab.folder / "nowhere"))
    refused(lab, says=("cannot be read",), url="--upload-pack=true")


def test_a_moved_tag(lab: Any) -> None:
    known = manifest_of_commit(open_repository_of(lab.upstream), "v0.0.2^{commit}", ref="v0.0.2")
    lab.ours.commit({"light_compute_project/upstream/manifest-v0.0.2.txt": known.render()})
    lab.upstream.commit({"litgpt/model.py": "other\n"})
    lab.upstream.git("tag", "--force", "v0.0.2")
    refused(lab, says=("moved", known.commit, lab.upstream.git("rev-parse", "v0.0.2"), "manifest-v0.0.2.txt"))


def test_a_tag_that_moved_since_the_sync(lab: Any) -> None:
    sync(lab.ours.root, "v0.0.1", url=lab.url)
    lab.upstream.commit({"litgpt/model.py": "other\n"})
    lab.upstream.git("tag", "--force", "v0.0.1")
    refused(lab, "v0.0.1", says=("moved", "git update-ref -d refs/litgpt/tags/v0.0.1"))


def open_repository_of(repository: Any) -> Any:
    (repository.root / "light_compute_project").mkdir(exist_ok=True)
    git = open_repository(repository.root)
    (repository.root / "light_compute_project").rmdir()
    return git


# ---- what upstream brings, and what lies in its way ----


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("light_compute_project/intruder.py", "light_compute_project"),
        ("Light_Compute_Project/intruder.py", "which is ours"),
        (".litgpt/intruder", ".litgpt"),
        ("CHANGES.md", "CHANGES.md: is ours"),
        ("tests/Makefile", "Makefile: is ours"),
        ("tests/makefile", "in case only"),
        ("tests/Makefile/inside", "is a file of ours"),
        ("tests/runs.d", "a folder of ours"),
        ("tests/RUNS.D/other", "in case only"),
        ("tests/runs.d/e\u0301.txt", "in case only"),
    ],
)
def test_an_upstream_path_that_conflicts_with_ours(lab: Any, path: str, says: str) -> None:
    ours = ("CHANGES.md", "tests/Makefile", "tests/runs.d/ours.txt", "tests/runs.d/\u00e9.txt")
    lab.ours.commit(dict.fromkeys(ours, "x\n"))
    lab.release("v0.0.3", {path: "theirs\n"})
    refused(lab, "v0.0.3", says=(path.split("/")[0] if path.isascii() else "runs.d", says))


def test_files_that_would_take_over_make_pytest_or_python_are_set_aside(lab: Any) -> None:
    hostile = ("GNUmakefile", "pytest.toml", ".vscode/tasks.json", "sitecustomize.py", "torch.py", ".lfsconfig")
    lab.release("v0.0.3", dict.fromkeys(hostile, "theirs\n"))
    sync(lab.ours.root, "v0.0.3", url=lab.url)
    assert [path for path in hostile if (lab.ours.root / path).exists()] == []
    assert [path for path in hostile if not (lab.ours.root / ".litgpt" / path).is_file()] == []


@pytest.mark.skipif(sys.platform == "win32", reason="making links needs a right of its own on Windows")
def test_a_link_of_upstreams_that_leads_out_of_the_repository(lab: Any) -> None:
    lab.upstream.git("checkout", "--quiet", "-b", "for-links", "v0.0.2")
    (lab.upstream.root / "litgpt" / "leak").symlink_to("/etc/passwd")
    lab.upstream.commit({}, message="a link", tag="v0.0.9")
    refused(lab, "v0.0.9", says=("leads out of the repository: litgpt/leak -> '/etc/passwd'",))


def test_two_paths_of_upstreams_that_are_one_on_this_file_system(lab: Any) -> None:
    lab.release("v0.0.3", {"litgpt/Model.py": "theirs\n"})
    lab.ours.git("config", "core.ignorecase", "true")
    refused(lab, "v0.0.3", says=("litgpt/model.py", "in case only"))


def test_a_submodule_of_upstreams(lab: Any) -> None:
    lab.upstream.git("checkout", "--quiet", "-b", "with-module", "v0.0.2")
    lab.upstream.git("update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},extensions/module")
    lab.upstream.git("commit", "--quiet", "-m", "a submodule")
    lab.upstream.git("tag", "v0.0.3")
    refused(lab, "v0.0.3", says=("submodule", "extensions/module"))


@pytest.mark.parametrize("change", ["edit", "remove", "mode", "kept"])
def test_a_file_of_upstreams_that_was_changed_here(lab: Any, change: str) -> None:
    sync(lab.ours.root, "v0.0.1", url=lab.url)
    source = lab.ours.git("rev-parse", "HEAD")[:12]
    if change == "mode":
        lab.ours.git("update-index", "--chmod=+x", "litgpt/model.py")
        lab.ours.git("commit", "--quiet", "-m", "mode")
        lab.ours.git("checkout", "--quiet", "--force", "main")
    else:
        path = ".litgpt/README.md" if change == "kept" else "litgpt/model.py"
        lab.ours.commit({path: None if change == "remove" else "patched\n"})
    says = {
        "edit": "model.py: edited",
        "remove": "removed",
        "mode": "mode changed",
        "kept": ".litgpt/README.md: edited",
    }
    refused(lab, says=(says[change], f"git restore --source={source}"))
    lab.ours.git("restore", f"--source={source}", "--staged", "--worktree", "--", "litgpt", ".litgpt")
    lab.ours.git("commit", "--quiet", "-m", "put back, as the message said")
    sync(lab.ours.root, FAR, url=lab.url)


def test_a_file_of_ours_among_upstreams(lab: Any) -> None:
    sync(lab.ours.root, "v0.0.1", url=lab.url)
    lab.ours.commit({"litgpt/new file.py": "ours by chance\n"})
    refused(lab, says=("litgpt/new file.py: is ours",))


@pytest.mark.parametrize("damage", ["record", "manifest", "both-differ"])
def test_a_corrupted_record(lab: Any, damage: str) -> None:
    sync(lab.ours.root, "v0.0.1", url=lab.url)
    if damage == "record":
        lab.ours.commit({RECORD: "nonsense\n"})
    elif damage == "manifest":
        lab.ours.commit({MANIFEST: None})
    else:
        text = (lab.ours.root / MANIFEST).read_text(encoding="utf-8", errors="surrogateescape")
        lab.ours.commit({MANIFEST: text.replace("100644", "100755", 1)})
    refused(lab, says=(".litgpt" if damage != "both-differ" else "altered",))


BLOCKERS: dict[str, Callable[[Path], None]] = {
    "untracked file": lambda root: put(root / "CONTRIBUTING.md"),
    "ignored file": lambda root: put(root / "litgpt/mine.local"),
    "file where a folder is needed": lambda root: put(root / "config_hub"),
    "link where a folder is needed": lambda root: (root / "litgpt").symlink_to(root / "light_compute_project"),
    "folder where a file is needed": lambda root: put(root / "CONTRIBUTING.md/inside"),
    "broken link": lambda root: (root / "CONTRIBUTING.md").symlink_to("nowhere"),
    "folder of old builds": lambda root: put(root / ".litgpt/SYNCED"),
}


def put(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("not to be lost\n")


@pytest.mark.skipif(sys.platform == "win32", reason="making links needs a right of its own on Windows")
@pytest.mark.parametrize("name", BLOCKERS)
def test_an_untracked_file_is_in_the_way(lab: Any, name: str) -> None:
    lab.release("v0.0.3", {"litgpt/mine.local": "theirs\n"})
    BLOCKERS[name](lab.ours.root)
    refused(lab, "v0.0.3", says=("are in the way", "move them away"))


def test_leftovers_in_a_folder_that_becomes_a_file(lab: Any) -> None:
    sync(lab.ours.root, "v0.0.1", url=lab.url)
    put(lab.ours.root / "extensions/was_a_folder/mine.local")
    refused(lab, says=("extensions/was_a_folder/mine.local",))


def test_untracked_files_elsewhere_do_not_matter_and_stay(lab: Any) -> None:
    put(lab.ours.root / "litgpt/notes.local")
    put(lab.ours.root / "runs/mine/log.txt")
    sync(lab.ours.root, FAR, url=lab.url)
    assert (lab.ours.root / "litgpt/notes.local").read_text() == "not to be lost\n"
    assert (lab.ours.root / "runs/mine/log.txt").exists()


def test_a_disk_that_fills_up_while_files_are_written(lab: Any) -> None:
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("mounting a tmpfs needs root on Linux")
    disk = lab.folder / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)], capture_output=True).returncode:
        pytest.skip("this machine does not let us mount a tmpfs")
    try:
        shutil.copytree(lab.ours.root, disk / "ours", symlinks=True)
        lab.ours = type(lab.ours)(disk / "ours")
        lab.ours.git("status")  # the copy's index knows other inodes
        lab.release("v0.0.3", {"tutorials/large.bin": b"a" * 4_000_000, "litgpt/aaa.py": "written before it fills\n"})
        before = lab.ours.snapshot()
        with pytest.raises(SyncRefused, match="rolled back"):
            sync(lab.ours.root, "v0.0.3", url=lab.url)
        after = lab.ours.snapshot()
        for key in ("git:index", "git:ORIG_HEAD"):  # written anew by the way back; what they say is compared below
            del before[key], after[key]
        assert after == before
        assert lab.ours.git("status", "--porcelain", "--ignored") == ""
    finally:
        subprocess.run(["umount", str(disk)], check=True)


# ---- undo ----


def refused_undo(lab: Any, *, says: str) -> None:
    before = lab.ours.snapshot()
    with pytest.raises(SyncRefused) as caught:
        undo(lab.ours.root)
    assert says in str(caught.value)
    assert lab.ours.snapshot() == before


def test_undo_without_a_sync_or_with_commits_after_it(lab: Any) -> None:
    refused_undo(lab, says="not the merge commit")
    done = sync(lab.ours.root, FAR, url=lab.url)
    lab.ours.commit({"Makefile": "later\n"})
    refused_undo(lab, says=f"git revert -m 1 {done.commit[:12]}")


def test_undo_of_a_published_sync(lab: Any) -> None:
    done = sync(lab.ours.root, FAR, url=lab.url)
    lab.ours.git("update-ref", "refs/remotes/origin/main", done.commit)
    refused_undo(lab, says="origin/main")


def test_undo_that_would_lose_a_file_or_an_edit(lab: Any) -> None:
    sync(lab.ours.root, "v0.0.1", url=lab.url)
    sync(lab.ours.root, FAR, url=lab.url)
    put(lab.ours.root / "tutorials/goes.md")
    refused_undo(lab, says="tutorials/goes.md")
    (lab.ours.root / "tutorials/goes.md").unlink()
    lab.ours.write({"litgpt/model.py": "an edit that is not committed\n"})
    refused_undo(lab, says="litgpt/model.py")
