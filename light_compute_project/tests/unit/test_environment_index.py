"""What a new version in a package index changes: nothing. uv and our Makefile against an index made here.

The index answers on this machine's loopback address and gives its files dates, so that a version can appear today
that is dated before `exclude-newer`.
"""

from __future__ import annotations

import base64
import hashlib
import http.server
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]
TOOL = ROOT / "light_compute_project" / "tools" / "pins.py"

BACKEND = '''
"""Builds an editable wheel that holds nothing but its name."""
import zipfile

def build_editable(folder, config_settings=None, metadata_directory=None):
    with zipfile.ZipFile(f"{folder}/ours-1-py3-none-any.whl", "w") as wheel:
        wheel.writestr("ours-1.dist-info/METADATA", "Metadata-Version: 2.1\\nName: ours\\nVersion: 1\\n")
        tags = "Wheel-Version: 1.0\\nGenerator: test\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n"
        wheel.writestr("ours-1.dist-info/WHEEL", tags)
        wheel.writestr("ours-1.dist-info/RECORD", "")
    return "ours-1-py3-none-any.whl"
'''

PROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
[project]
name = "ours"
version = "1"
requires-python = ">=3.11,<3.14"
dependencies = ["direct>=1"]
[dependency-groups]
dev = []
corpus = []
[tool.uv]
exclude-newer = "2026-03-01T00:00:00Z"
# pins: begin
constraint-dependencies = []
build-constraint-dependencies = []
# pins: end
"""


@cache
def tool() -> ModuleType:
    specification = importlib.util.spec_from_file_location("pins", TOOL)
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


class Index:
    """A package index in a folder, answered over loopback HTTP with the dates on which its files came."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.files = folder, {}
        index = self

        class Answer(http.server.SimpleHTTPRequestHandler):
            def do_GET(self) -> None:
                _, kind, name, *_ = [*self.path.split("/"), ""]
                known = {n for n, _ in index.files.values()}
                if kind == "simple" and name in known:
                    index.answer(self, json.dumps(index.page(name)).encode(), "application/vnd.pypi.simple.v1+json")
                elif kind == "files" and (index.folder / name).is_file():
                    index.answer(self, (index.folder / name).read_bytes(), "application/octet-stream")
                else:
                    self.send_error(404)

            def log_message(self, *_: object) -> None:
                """Says nothing."""

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @staticmethod
    def answer(handler: http.server.BaseHTTPRequestHandler, body: bytes, kind: str) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", kind)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    def page(self, name: str) -> dict[str, Any]:
        files = [
            {
                "filename": file,
                "url": f"{self.url}/files/{file}",
                "hashes": {"sha256": hashlib.sha256((self.folder / file).read_bytes()).hexdigest()},
                "upload-time": date,
            }
            for file, (owner, date) in self.files.items()
            if owner == name
        ]
        return {"meta": {"api-version": "1.1"}, "name": name, "files": files, "versions": []}

    def add(self, name: str, version: str, *, date: str, needs: str = "", text: str = "x = 1\n") -> None:
        """One more wheel; with another `text` the same name stands for other bytes."""
        file, info = f"{name}-{version}-py3-none-any.whl", f"{name}-{version}.dist-info"
        metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        content = {
            f"{name}.py": text,
            f"{info}/METADATA": metadata + (f"Requires-Dist: {needs}\n" if needs else ""),
            f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        }
        rows = [f"{path},{record_hash(body)},{len(body)}" for path, body in content.items()]
        content[f"{info}/RECORD"] = "\n".join([*rows, f"{info}/RECORD,,"]) + "\n"
        with zipfile.ZipFile(self.folder / file, "w") as wheel:
            for path, body in content.items():
                wheel.writestr(path, body)
        self.files[file] = (name, f"{date}T00:00:00Z")


def record_hash(body: str) -> str:
    return "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(body.encode()).digest()).rstrip(b"=").decode()


class Clone:
    """A small project with our Makefile and our tool, and an index of its own."""

    def __init__(self, folder: Path, index: Index, uv: str) -> None:
        self.folder, self.index = folder, index
        (folder / "light_compute_project" / "tools").mkdir(parents=True)
        shutil.copy(TOOL, folder / "light_compute_project" / "tools")
        shutil.copy(ROOT / "Makefile", folder)
        (folder / "pyproject.toml").write_text(PROJECT)
        (folder / "backend.py").write_text(BACKEND)
        (folder / "requirements.txt").write_text("")
        (folder / "README.md").write_text("ours\n")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("UV_", "PIP_", "MAKE"))}
        kept.pop("VIRTUAL_ENV", None)
        self.environment = kept | {
            "PATH": os.pathsep.join([str(Path(uv).parent), os.environ.get("PATH", os.defpath)]),
            "UV_DEFAULT_INDEX": f"{index.url}/simple",
            "UV_CACHE_DIR": str(folder / "cache"),
            "UV_PYTHON": sys.executable,
            "UV_PYTHON_DOWNLOADS": "never",
            "NO_PROXY": "127.0.0.1",
            "HOME": str(folder),
        }

    def make(self, *arguments: str, expect: int = 0) -> str:
        done = subprocess.run(
            ["make", *arguments], cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=120
        )
        assert (done.returncode != 0) == bool(expect), done.stdout + done.stderr
        return done.stdout + done.stderr

    def resolve(self) -> list[str]:
        """The versions that a clone without a lock file gets today."""
        (self.folder / "uv.lock").unlink(missing_ok=True)
        self.make("requirements")
        found: list[str] = tool().read_pins((self.folder / "requirements.txt").read_text())
        return found

    def installed(self) -> set[str]:
        return {path.name for path in (self.folder / ".venv").rglob("*.dist-info")}


@pytest.fixture
def clone(tmp_path: Path) -> Iterator[Clone]:
    uv = os.environ.get("UV") or shutil.which("uv") or str(ROOT / ".uv" / "bin" / "uv")
    if not Path(uv).exists() or shutil.which("make") is None:
        pytest.skip("uv and make are not both on this machine")
    (tmp_path / "index").mkdir()
    (tmp_path / "clone").mkdir()
    index = Index(tmp_path / "index")
    index.add("direct", "1.0", date="2026-01-01", needs="below>=1")
    index.add("below", "1.0", date="2026-01-01")
    yield Clone(tmp_path / "clone", index, uv)
    index.server.shutdown()
    index.server.server_close()


def test_a_new_version_with_an_older_date_moves_nothing_but_without_pins_it_does(clone: Clone) -> None:
    assert clone.resolve() == ["below==1.0", "direct==1.0"]
    pinned = (clone.folder / "pyproject.toml").read_text()
    assert '"below==1.0",' in pinned and '"direct==1.0",' in pinned
    for name, needs in (("direct", "below>=1"), ("below", "")):
        clone.index.add(name, "1.1", date="2026-01-02", needs=needs)  # appears today and is dated before exclude-newer
    clone.environment["UV_CACHE_DIR"] += "-of-somebody-else"
    assert clone.resolve() == ["below==1.0", "direct==1.0"]
    assert (clone.folder / "pyproject.toml").read_text() == pinned
    (clone.folder / "pyproject.toml").write_text(PROJECT)
    assert clone.resolve() == ["below==1.1", "direct==1.1"]


def test_uv_run_in_a_new_clone_installs_the_committed_versions(clone: Clone) -> None:
    clone.resolve()
    (clone.folder / "uv.lock").unlink()
    clone.index.add("below", "1.1", date="2026-01-02")
    command = ["uv", "run", "python", "-c", "import importlib.metadata as m; print(m.version('below'))"]
    done = subprocess.run(command, cwd=clone.folder, env=clone.environment, capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "1.0", done.stderr


def test_make_installs_once_and_refuses_other_bytes_under_the_same_name(clone: Clone) -> None:
    clone.resolve()
    assert "Installing the packages of requirements.txt" in clone.make("environment")
    assert clone.installed() == {"direct-1.0.dist-info", "below-1.0.dist-info", "ours-1.dist-info"}
    assert "Nothing to be done" in clone.make("environment")
    shutil.rmtree(clone.folder / ".venv")
    clone.environment["UV_CACHE_DIR"] += "-of-somebody-else"
    clone.index.add("below", "1.0", date="2026-01-01", text="x = 'other bytes'\n")
    said = clone.make("environment", expect=2)
    assert "Hash mismatch for `below==1.0`" in said
    assert not [name for name in clone.installed() if name.startswith("below")]
    assert not (clone.folder / ".venv" / "requirements-installed").exists(), "the next make must try again"


def test_an_upgrade_raises_what_is_named_and_says_what_changed(clone: Clone) -> None:
    clone.resolve()
    for name, needs in (("direct", "below>=1"), ("below", "")):
        clone.index.add(name, "1.1", date="2026-03-05", needs=needs)
    before = {name: (clone.folder / name).read_text() for name in ("pyproject.toml", "requirements.txt")}
    said = clone.make("outdated", "BEFORE=2026-03-10")
    assert said.splitlines()[2:] == ["| below | 1.0 | 1.1 |", "| direct | 1.0 | 1.1 |"]
    assert before == {name: (clone.folder / name).read_text() for name in before}, "outdated only tells"
    said = clone.make("upgrade", "PACKAGES=below", "BEFORE=2026-03-10", "PYTEST=true")
    assert "| below | 1.0 | 1.1 |" in said and "| direct" not in said and "tests pass" in said
    assert tool().read_pins((clone.folder / "requirements.txt").read_text()) == ["below==1.1", "direct==1.0"]
    assert 'exclude-newer = "2026-03-10T00:00:00Z"' in (clone.folder / "pyproject.toml").read_text()
    clone.index.add("below", "1.2", date="2026-03-06")
    said = clone.make("upgrade", "PYTEST=false", "BEFORE=2026-03-10", expect=2)  # the tests fail
    assert "| below | 1.1 | 1.2 |" in said and "| direct | 1.0 | 1.1 |" in said and "tests pass" not in said
