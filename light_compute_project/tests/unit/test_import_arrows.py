"""Imports point one way, down the list of packages in docs/architecture.md, and slow imports stay in their packages."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[2] / "src" / "litgpt_core"

LEVELS = (
    ("core",),
    ("model", "tokenizers", "pure", "upstream"),
    ("prompts", "optim"),
    ("data", "checkpoint"),
    ("config",),
    ("generation", "distributed", "planning"),
    ("training",),
    ("runs",),
    ("search", "evaluate"),
    ("export", "audit", "deploy", "doctor", "interpret", "compression"),
    ("serving",),
    ("commands",),
    ("cli",),
    ("__main__",),
)
RANK = {package: level for level, packages in enumerate(LEVELS) for package in packages}

CONFINED = {
    "lightning": ("training", "data/module.py"),
    "hydra": ("config/compose.py", "search/sweep_grid.py", "search/study"),
    "optuna": ("search/",),
    "omegaconf": ("config/compose.py",),
    "wandb": ("training/wandb_",),
    "matplotlib": (
        "training/results.py",
        "runs/plots.py",
        "search/plots.py",
        "evaluate/plots.py",
        "interpret/pictures",
        "compression/report_chart.py",
    ),
    "litgpt": (),
    "transformers": (),
}


def imports(path: Path) -> Iterator[tuple[str, int]]:
    """Absolute module names that a file imports, wherever in the file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            module = node.module or ""
            if module == "litgpt_core":
                yield from ((f"litgpt_core.{alias.name}", node.lineno) for alias in node.names)
            else:
                yield module, node.lineno


def package_of(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


FILES = sorted(SOURCE.rglob("*.py"))


def test_every_package_has_a_level() -> None:
    packages = {package_of(path) for path in FILES} - {"__init__"}
    assert packages == set(RANK), "a new package needs a place in LEVELS and in docs/architecture.md"


def test_imports_point_down() -> None:
    wrong = []
    for path in FILES:
        package = package_of(path)
        for name, line in imports(path):
            if not name.startswith("litgpt_core."):
                continue
            target = name.split(".")[1]
            if package != "__init__" and target != package and RANK[target] >= RANK[package]:
                wrong.append(f"{path.relative_to(SOURCE)}:{line} imports {name}")
    assert not wrong, "\n".join(wrong)


def test_slow_packages_stay_in_their_packages() -> None:
    wrong = []
    for path in FILES:
        place = path.relative_to(SOURCE).as_posix()
        for name, line in imports(path):
            allowed = CONFINED.get(name.split(".")[0])
            if allowed is not None and not place.startswith(allowed):
                wrong.append(f"{place}:{line} imports {name}")
    assert not wrong, "\n".join(wrong)
