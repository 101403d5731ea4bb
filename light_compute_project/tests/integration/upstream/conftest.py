"""Git repositories made for a test: a small upstream with every awkward kind of file, and a small one of ours."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

IGNORED_BY_UPSTREAM = (
    "__pycache__\n*.egg-info\nbuild\ndist\n.venv\nuv.lock\ndata\ndatasets\n!litgpt/data\n!tests/data\n"
)
IGNORED_BY_UPSTREAM += "checkpoints\nout\nwandb\n**/custom_texts/\nclient.py\n"
"""The kind of rules that LitGPT's root .gitignore has."""

PROJECT = '[project]\nname = "ours"\ndependencies = ["litgpt==0.0.1"]\n'

FIRST: dict[str, str | bytes | None] = {
    "LICENSE": "upstream's licence\n",
    "README.md": "upstream's page\n",
    "pyproject.toml": '[project]\nname = "litgpt"\n',
    ".gitignore": IGNORED_BY_UPSTREAM,
    "litgpt/__init__.py": "from litgpt.model import GPT\n",
    "litgpt/model.py": "class GPT:\n    def forward(self, idx, input_pos=None):\n        return idx\n",
    "litgpt/data/blob.bin": bytes(range(256)) * 8,
    "litgpt/windows.txt": b"one\r\ntwo\r\n",
    "config_hub/tiny.yaml": "n_layer: 1\n",
    "extensions/tool/run.sh": "#!/bin/sh\necho 1\n",
    "extensions/was_a_folder/inside.py": "x = 1\n",
    "extensions/was_a_file": "text\n",
    "tests/conftest.py": "import sys\n",
    "tests/test_upstream.py": "def test_it():\n    pass\n",
    "tutorials/with spaces.md": "one\n",
    "tutorials/na\u00efve \u2603.md": "two\n",
    "tutorials/goes.md": "three\n",
    ".github/workflows/publish-pkg.yml": "on: push\n",
    ".lightning/workflows/x.yml": "x: 1\n",
}
if sys.platform == "linux":
    FIRST |= {
        'tutorials/"quoted"\ttab.md': "four\n",
        "tutorials/line\nbreak.md": "five\n",
        "tutorials/\udcff.md": "six\n",
    }

SECOND: dict[str, str | bytes | None] = {
    "LICENSE": None,
    "LICENSE.md": "upstream's licence\n",
    "CONTRIBUTING.md": "new\n",
    "litgpt/model.py": "class GPT:\n    def forward(self, idx, *, input_pos=None, lm_head_chunk_size=0): ...\n",
    "litgpt/data/blob.bin": bytes(reversed(range(256))) * 9,
    "litgpt/new file.py": "y = 2\n",
    "extensions/was_a_folder/inside.py": None,
    "extensions/was_a_folder": "now a file\n",
    "extensions/was_a_file": None,
    "extensions/was_a_file/inside.py": "now a folder\n",
    "tutorials/goes.md": None,
}

OURS: dict[str, str | bytes | None] = {
    "LICENSE": "our licence\n",
    "README.md": "our page\n",
    "Makefile": "all:\n\ttrue\n",
    "pyproject.toml": PROJECT,
    ".gitignore": "/runs/\n*.local\n",
    ".github/workflows/light-compute-check.yml": "on: push\n",
    "light_compute_project/src/litgpt_core/model.py": "from litgpt.model import GPT\n\nGPT().forward(0)\n",
    "light_compute_project/data/README.md": "shards\n",
}


class Repository:
    """A git repository under test, driven by the real git."""

    def __init__(self, folder: Path) -> None:
        self.root = folder

    def git(self, *arguments: str) -> str:
        done = subprocess.run(["git", "-C", str(self.root), *arguments], capture_output=True, check=False)
        assert done.returncode == 0, f"git {arguments}: {os.fsdecode(done.stderr)}"
        return os.fsdecode(done.stdout).rstrip("\n")

    def write(self, files: Mapping[str, str | bytes | None]) -> None:
        """Put files there; None removes one. Removals come first, so that a folder may become a file."""
        for path in (p for p, content in files.items() if content is None):
            (self.root / path).unlink()
            parent = (self.root / path).parent
            if parent != self.root and not any(parent.iterdir()):
                parent.rmdir()
        for path, content in files.items():
            if content is not None:
                (self.root / path).parent.mkdir(parents=True, exist_ok=True)
                (self.root / path).write_bytes(content.encode() if isinstance(content, str) else content)

    def commit(self, files: Mapping[str, str | bytes | None], *, message: str = "change", tag: str = "") -> str:
        self.write(files)
        self.git("add", "--all", "--force", ".")
        self.git("commit", "--quiet", "--allow-empty", "-m", message)
        if tag:
            self.git("tag", tag)
        return self.git("rev-parse", "HEAD")

    def snapshot(self) -> dict[str, object]:
        """All that a refusal must leave alone: HEAD, refs, index, what git says is going on, and every file's bytes."""
        private = Path(self.git("rev-parse", "--absolute-git-dir"))
        state: dict[str, object] = {"refs": self.git("for-each-ref"), "stash": self.git("stash", "list")}
        for name in ("HEAD", "index", "MERGE_HEAD", "FETCH_HEAD", "ORIG_HEAD", "config", "logs/HEAD", "shallow"):
            file = private / name
            state[f"git:{name}"] = file.read_bytes() if file.exists() else None
        for folder, folders, names in os.walk(self.root):
            folders[:] = [name for name in folders if name != ".git"]
            for path in (Path(folder) / name for name in [*names, *folders]):
                if path.is_symlink():
                    state[str(path)] = ("link", str(path.readlink()))
                else:
                    state[str(path)] = (path.stat().st_mode, path.read_bytes() if path.is_file() else None)
        return state

    def files(self, commit: str = "HEAD") -> dict[str, str]:
        """`mode blob` by path of a commit."""
        rows = [row for row in self.git("ls-tree", "-r", "-z", commit).split("\0") if row]
        split = [row.split("\t", 1) for row in rows]
        return {path: f"{meta.split()[0]} {meta.split()[2]}" for meta, path in split}


class Lab:
    """Two repositories and the folder they lie in."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.upstream = self.new("upstream")
        self.upstream.commit(FIRST, message="first release", tag="v0.0.1")
        if os.name == "posix":
            (self.upstream.root / "tutorials/link.md").symlink_to("with spaces.md")
        self.upstream.commit({}, message="add a link")
        self.upstream.git("tag", "--force", "v0.0.1")
        self.upstream.write(SECOND)
        self.upstream.git("add", "--all", "--force", ".")
        self.upstream.git("update-index", "--chmod=+x", "extensions/tool/run.sh")
        self.upstream.git("commit", "--quiet", "-m", "second release")
        self.upstream.git("tag", "-a", "v0.0.2", "-m", "annotated")
        self.upstream.git("checkout", "--quiet", "--force", "main")
        self.ours = self.new("ours")
        self.ours.commit(OURS, message="our first commit")
        self.url = str(self.upstream.root)

    def new(self, name: str) -> Repository:
        (self.folder / name).mkdir()
        repository = Repository(self.folder / name)
        repository.git("init", "--quiet", "--initial-branch=main")
        return repository

    def release(self, tag: str, files: Mapping[str, str | bytes | None]) -> str:
        """One more tag of upstream's, on a branch of its own from the second release."""
        self.upstream.git("checkout", "--quiet", "--force", "-b", f"for-{tag}", "v0.0.2")
        commit = self.upstream.commit(files, message=tag, tag=tag)
        self.upstream.git("checkout", "--quiet", "--force", "main")
        return commit


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """Fresh repositories, a home of their own and no configuration but a name."""
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    home = tmp_path / "home"
    home.mkdir()
    (home / ".gitconfig").write_text("[user]\n\tname = Tester\n\temail = tester@example.invalid\n[gc]\n\tauto = 0\n")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(home / ".gitconfig"))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    return Lab(tmp_path)
