"""The contract with LitGPT's names: what we use of them is in the installed package as the snapshot says."""

from __future__ import annotations

from pathlib import Path

import pytest

from litgpt_core.upstream.imported_names import imported_names, names_in
from litgpt_core.upstream.names import (
    compare_definitions,
    compare_names,
    read_snapshot,
    render_changes,
    snapshot_path,
    used_names,
)
from litgpt_core.upstream.pin import installed_package, pinned_tag
from litgpt_core.upstream.signatures import Definition, Sources, canonical, compare, define, folder_sources

ROOT = Path(__file__).resolve().parents[4]
COMMAND = "uv run lcp sync --record_names"


def sources(files: dict[str, str]) -> Sources:
    return files.get


# ---- the contract itself ----


@pytest.mark.parity
def test_the_installed_litgpt_has_every_name_we_use_with_its_signature() -> None:
    """Fails when a release takes a name away or changes its signature; the nightly run meets it first."""
    snapshot = read_snapshot(snapshot_path(ROOT, pinned_tag(ROOT)))
    installed = folder_sources(installed_package().folder.parent)
    changes = compare_definitions(
        snapshot, {name: define(name, installed) for name in snapshot}, places=used_names(ROOT, old=installed)
    )
    broken = [change for change in changes if change.state in ("gone", "signature changed")]
    assert not broken, f"litgpt {installed_package().version} changed what our code uses:\n{render_changes(broken)}"


def test_the_snapshot_holds_exactly_the_names_that_we_use() -> None:
    installed = installed_package()
    if installed.version != pinned_tag(ROOT)[1:]:
        pytest.skip(f"litgpt {installed.version} is installed, not the pinned version")
    used = set(used_names(ROOT, old=folder_sources(installed.folder.parent)))
    kept = set(read_snapshot(snapshot_path(ROOT, pinned_tag(ROOT))))
    assert used == kept, f"more: {sorted(used - kept)}, fewer: {sorted(kept - used)}; write it anew: {COMMAND}"


def test_what_we_use_is_found_in_this_repository() -> None:
    names = imported_names(ROOT)
    assert "litgpt.config.configs" in names, "the registry is read by path, without an import statement"
    assert any("tests/unit/model/" in place for place in names["litgpt.config.configs"])


# ---- finding names ----


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import litgpt", {"litgpt"}),
        ("import litgpt.model\nlitgpt.model.GPT(1)", {"litgpt.model", "litgpt.model.GPT"}),
        ("import litgpt.config as c\nc.Config.from_name('x')", {"litgpt.config", "litgpt.config.Config.from_name"}),
        ("from litgpt import GPT as G\nG.from_name()", {"litgpt.GPT", "litgpt.GPT.from_name"}),
        ("def f():\n    from litgpt.utils import (a,\n        b)", {"litgpt.utils.a", "litgpt.utils.b"}),
        ("import pytest\nm = pytest.importorskip('litgpt')\nm.GPT", {"litgpt", "litgpt.GPT"}),
        ("import importlib\nm = importlib.import_module('litgpt.lora')\nm.mark()", {"litgpt.lora", "litgpt.lora.mark"}),
        ("CODE = '''\nfrom litgpt.api import LLM, x\n'''", {"litgpt.api.LLM", "litgpt.api.x"}),
        ("from litgpt.utils import *", {"litgpt.utils"}),
        ("import litgpt_core.model\nfrom litgptx import y\nimport os.path as litgpt\nlitgpt.join", set()),
    ],
)
def test_names_are_found_in(source: str, expected: set[str]) -> None:
    assert {name for name, _ in names_in(source)} == expected


# ---- reading definitions ----

OLD = {
    "litgpt/__init__.py": (
        "from litgpt.model import GPT\nfrom .config import *\nfrom litgpt import config as settings\n"
    ),
    "litgpt/config.py": "@dataclass\nclass Config:\n    a: int = 1\n    b: str\n\nconfigs = []\n",
    "litgpt/model.py": (
        "try:\n    import fast\n    from litgpt.other import twin\nexcept ImportError:\n    def twin(x): ...\n"
        "class Base:\n    def shared(self, x): ...\n"
        "class GPT(Base):\n    '''Text.'''\n    def forward(self, idx: int, pos: int = 0) -> int:\n        return idx\n"
        "    def _private(self): ...\n    @classmethod\n    def make(cls, name, **kw): ...\n"
        "async def f(a, /, b=2, *c, d=None): ...\n"
    ),
    "litgpt/other.py": "def twin(x, y): ...\n",
}


def test_definitions_follow_imports_members_and_bases() -> None:
    old = sources(OLD)
    assert define("litgpt.model.f", old) == Definition(
        signature=("async f(a, /, b=2, *c, d=None)",), body=str(getattr(define("litgpt.model.f", old), "body", None))
    )
    gpt = define("litgpt.GPT", old)
    assert gpt == define("litgpt.model.GPT", old) and gpt is not None
    assert gpt.signature == ("class GPT(Base)", "forward(self, idx, pos=0)", "@classmethod make(cls, name, **kw)")
    for name, signature in {
        "litgpt.GPT.shared": ("shared(self, x)",),
        "litgpt.Config": ("class Config()", "a = 1", "b"),
        "litgpt.settings.Config": ("class Config()", "a = 1", "b"),
        "litgpt.config.configs": ("a value",),
        "litgpt.config": ("a module",),
    }.items():
        found = define(name, old)
        assert found is not None and found.signature == signature
    for name in ("litgpt.absent", "litgpt.absent.Config", "litgpt.GPT.absent", "other"):
        assert define(name, old) is None


def test_attributes_of_objects_are_removed() -> None:
    assert canonical("litgpt.GPT.forward.__wrapped__.x", sources(OLD)) == "litgpt.GPT.forward"
    assert canonical("litgpt.config.configs.append", sources(OLD)) == "litgpt.config.configs"
    assert canonical("litgpt.absent", sources(OLD)) is None


@pytest.mark.parametrize(
    ("old", "new", "state"),
    [
        ("def f(a): return 1", "def f(a):\n\n    # why\n    return 1", "body changed"),
        ("def f(a):\n    return 1", "def f(a):\n    'Says.'\n\n    # why\n    return 1", "same"),
        ("def f(a):\n    return 1", "def f(a):\n    return 2", "body changed"),
        ("def f(a: int):\n    return 1", "def f(a: 'str') -> int:\n    return 1", "body changed"),
        ("def f(a): ...", "def f(b): ...", "signature changed"),
        ("def f(a): ...", "def f(a=1): ...", "signature changed"),
        ("def f(a, b): ...", "def f(a, *, b): ...", "signature changed"),
        ("def f(a): ...", "async def f(a): ...", "signature changed"),
        ("class f:\n    x: int = 1", "class f:\n    x: int = 2", "signature changed"),
        ("class f:\n    def _a(self): ...", "class f:\n    def _b(self): ...", "body changed"),
        ("f = 1", "f = 2", "body changed"),
        ("def f(a): ...", "def g(a): ...", "gone"),
        ("def g(a): ...", "def f(a): ...", "new"),
    ],
)
def test_states(old: str, new: str, state: str) -> None:
    before, after = (define("litgpt.m.f", sources({"litgpt/m.py": text})) for text in (old, new))
    assert compare(before, after) == state


def test_a_comparison_names_the_lines_and_the_places(tmp_path: Path) -> None:
    folder = tmp_path / "light_compute_project" / "src"
    folder.mkdir(parents=True)
    (folder / "a.py").write_text("from litgpt.model import GPT, f\nf(1)\nGPT.make('x')\n")
    new = {
        **OLD,
        "litgpt/model.py": OLD["litgpt/model.py"].replace("cls, name", "cls, *, name").replace("def f(", "def g("),
    }
    changes = compare_names(tmp_path, old=sources(OLD), new=sources(new))
    assert [(change.state, change.name) for change in changes] == [
        ("gone", "litgpt.model.f"),
        ("signature changed", "litgpt.model.GPT"),
        ("signature changed", "litgpt.model.GPT.make"),
        ("same", "litgpt.config.configs"),
    ]
    assert changes[2].old == ("@classmethod make(cls, name, **kw)",)
    assert changes[2].new == ("@classmethod make(cls, *, name, **kw)",)
    assert changes[2].places == ("light_compute_project/src/a.py:3",)
    text = render_changes(changes)
    assert "    + @classmethod make(cls, *, name, **kw)" in text and "used in light_compute_project/src/a.py:3" in text
