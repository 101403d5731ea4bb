"""This very project after a sync: nothing of ours is hidden, changed or shadowed, nothing of upstream's is shipped."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest

from litgpt_core.upstream.placement import OURS, RECORD
from litgpt_core.upstream.sync import sync
from litgpt_core.upstream.verify import read_synced

ROOT = Path(__file__).resolve().parents[4]
SCRIPT = "light_compute_project/scripts/sync_upstream.py"


def own_files() -> list[str]:
    """Paths of this checkout that are ours, committed or about to be; skipped where there is no git."""
    command = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        output = subprocess.run(command, capture_output=True, check=True, timeout=60).stdout
    except (OSError, subprocess.SubprocessError) as error:
        pytest.skip(f"not a git checkout: {error}")
    synced = read_synced(ROOT)
    placed = synced.entries() if synced else {}
    names = {os.fsdecode(name) for name in output.split(b"\0") if name}
    return sorted(name for name in names if name not in placed and (ROOT / name).is_file())


@pytest.fixture
def project(lab: Any) -> Any:
    """A repository that holds this project's files as they are now; `lab.ours` is it."""
    lab.ours = lab.new("project")
    for name in own_files():
        (lab.ours.root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, lab.ours.root / name)
    lab.ours.commit({}, message="the project")
    return lab


def run(root: Path, *command: str, expect: int = 0) -> str:
    """Output of a command with the Python of the tests, as if this project were installed from `root`."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    environment["PYTHONPATH"] = str(root / "light_compute_project/src")
    done = subprocess.run([sys.executable, *command], cwd=root, env=environment, capture_output=True, text=True)
    assert done.returncode == expect, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_none_of_our_files_is_at_an_upstream_path() -> None:
    tracked = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "litgpt", "config_hub", "extensions", "tutorials", "tests", ".litgpt"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if tracked.returncode:
        pytest.skip("not a git checkout")
    if (ROOT / RECORD).is_file():
        pytest.skip("upstream's tree was brought in here")
    assert tracked.stdout == ""


def test_every_file_of_ours_is_in_git_whatever_upstreams_rules_are(project: Any) -> None:
    lab = project
    before = lab.ours.files()
    sync(lab.ours.root, "v0.0.2", url=lab.url)
    after = lab.ours.files()
    assert {path: after[path] for path in before} == before
    # somebody takes upstream's rules into our root file as well
    rules = (lab.ours.root / ".litgpt/.gitignore").read_text() + (ROOT / ".gitignore").read_text()
    (lab.ours.root / ".gitignore").write_text(rules)
    new = [
        f"{OURS}/src/litgpt_core/{room}/{name}"
        for room in ("data", "checkpoint", "serving", "build", "out", "wandb", "datasets", "dist")
        for name in ("client.py", "data.py", "checkpoints/a.py", "out/b.py", "build/c.py", "data/d.py")
    ]
    new += [f"{OURS}/configs/data/x.yaml", f"{OURS}/tests/unit/data/test_x.py", f"{OURS}/metrics/wandb/x.json"]
    tested = subprocess.run(
        ["git", "-C", str(lab.ours.root), "check-ignore", "--no-index", "--verbose", "--stdin", "-z"],
        input="\0".join([*before, *new]).encode(), capture_output=True, check=False,
    )  # fmt: skip
    fields = os.fsdecode(tested.stdout).split("\0")
    hidden = [path for rule, path in zip(fields[2::4], fields[3::4], strict=False) if not rule.startswith("!")]
    assert hidden == []
    lab.ours.write(
        {f"{OURS}/data/python-0123/train.bin": b"\0\1", "runs/mine/log": "x", f"{OURS}/src/__pycache__/x": "x"}
    )
    assert (
        lab.ours.git("status", "--porcelain", "--untracked-files=all") == "M .gitignore"
        or lab.ours.git("ls-files", "--others", "--exclude-standard") == ""
    )


def test_our_scripts_and_pytest_take_the_wheel_and_pythonpath_the_tree(project: Any) -> None:
    lab = project
    sync(lab.ours.root, "v0.0.2", url=lab.url)
    root = lab.ours.root
    look = "from importlib.util import find_spec\nfrom pathlib import Path\n"
    look += "place = Path(find_spec('litgpt').origin).parent.parent\n"
    (root / OURS / "scripts/where.py").write_text(f"{look}print(place)\n")
    test = f"{look}def test_where():\n    assert place != Path({str(root)!r})\n"
    (root / OURS / "tests/unit/test_where.py").write_text(test)
    assert Path(run(root, f"{OURS}/scripts/where.py").strip()) != root
    pytest_command = shutil.which("pytest", path=str(Path(sys.executable).parent))
    if pytest_command:
        done = subprocess.run([pytest_command, "-q", f"{OURS}/tests/unit/test_where.py"], cwd=root, capture_output=True)
        assert done.returncode == 0, os.fsdecode(done.stdout)
    environment = {**os.environ, "PYTHONPATH": "."}
    tree = subprocess.run([sys.executable, f"{OURS}/scripts/where.py"], cwd=root, env=environment, capture_output=True)
    assert Path(os.fsdecode(tree.stdout).strip()).resolve() == root.resolve()


def _source_of(name: str) -> str:
    """Where a file of the wheel lies in the checkout."""
    configs = "litgpt_core/configs/"
    return f"{OURS}/configs/{name.removeprefix(configs)}" if name.startswith(configs) else f"{OURS}/src/{name}"


@pytest.mark.nightly
@pytest.mark.parametrize("kind", ["wheel", "sdist"])
def test_what_we_ship_holds_nothing_of_upstreams(project: Any, kind: str) -> None:
    pytest.importorskip("setuptools", minversion="77")
    lab = project
    sync(lab.ours.root, "v0.0.2", url=lab.url)
    synced = read_synced(lab.ours.root)
    assert synced is not None
    ours = set(lab.ours.files()) - set(synced.entries())
    code = f"from setuptools import build_meta; print(build_meta.build_{kind}({str(lab.folder)!r}))"
    run(lab.ours.root, "-c", code)
    if kind == "wheel":
        [archive] = lab.folder.glob("*.whl")
        names = zipfile.ZipFile(archive).namelist()
        inside = {_source_of(name) for name in names if ".dist-info/" not in name}
        metadata = {name.split(".dist-info/", 1)[1] for name in names if ".dist-info/" in name}
        assert metadata - {"METADATA", "WHEEL", "RECORD", "top_level.txt", "entry_points.txt"} <= {"licenses/LICENSE"}
    else:
        [archive] = lab.folder.glob("*.tar.gz")
        with tarfile.open(archive) as content:
            inside = {m.name.split("/", 1)[1] for m in content.getmembers() if m.isfile()}
        inside -= {"PKG-INFO", "setup.cfg"}
        inside = {name for name in inside if ".egg-info/" not in name}
    assert {f"{OURS}/src/litgpt_core/core/errors.py", f"{OURS}/configs/train.yaml"} <= inside
    assert inside <= ours, sorted(inside - ours)


@pytest.mark.nightly
def test_our_own_quick_tests_pass_after_a_sync(project: Any) -> None:
    lab = project
    sync(lab.ours.root, "v0.0.2", url=lab.url)
    tests = [
        f"{OURS}/tests/unit/test_import_arrows.py",
        f"{OURS}/tests/unit/test_repository.py",
        f"{OURS}/tests/unit/upstream",
    ]
    # what starts processes of its own or imports every module is left out here; the rest reads files
    chosen = "not help_answers and not module_imports"
    output = run(lab.ours.root, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", chosen, *tests)
    assert re.search(r"\d+ passed", output)


@pytest.mark.nightly
def test_upstreams_own_tests_collect_beside_ours(project: Any) -> None:
    lab = project
    sync(lab.ours.root, "v0.0.2", url=lab.url)
    output = run(
        lab.ours.root, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir=tests", "tests"
    )
    assert "1 passed" in output


def test_the_script_from_end_to_end(project: Any) -> None:
    lab = project
    root, url = lab.ours.root, ("--url", lab.url)
    assert "the sync is possible" in run(root, SCRIPT, "--ref", "v0.0.2", "--dry-run", *url).lower()
    output = run(root, SCRIPT, "--ref", "v0.0.2", *url)
    assert (
        "merge commit" in output
        and "warning: pyproject.toml pins litgpt==" in output
        and 'make upgrade PACKAGES="litgpt==0.0.2"' in output
    )
    output = run(root, SCRIPT, "--status", *url)
    assert "synced     v0.0.2" in output
    assert "the remote does not answer" in run(root, SCRIPT, "--status", "--url", str(lab.folder / "nowhere"))
    (root / "litgpt/model.py").write_text("changed\n")
    assert "changed litgpt/model.py" in run(root, SCRIPT, "--verify", expect=1)
    assert "litgpt/model.py" in run(root, SCRIPT, "--ref", "v0.0.1", *url, expect=2)
    lab.ours.git("checkout", "--", "litgpt")
    assert "is undone" in run(root, SCRIPT, "--undo")
    assert not (root / "litgpt").exists()


def test_verification_takes_well_under_a_second(project: Any) -> None:
    lab = project
    sync(lab.ours.root, "v0.0.2", url=lab.url)
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        run(lab.ours.root, SCRIPT, "--verify")
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 1.0, seconds
