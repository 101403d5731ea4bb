"""Finds the names of LitGPT that our code and tests use, with `ast`, without importing or running anything.

Covers import statements, attributes of the imported names, `importlib.import_module("litgpt...")`,
`pytest.importorskip(...)`, and import lines in strings, because tests pass code to other processes.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

PACKAGE = "litgpt"

READ_BY_PATH = ("litgpt.config.configs",)
"""Read by `model/registry.py` from upstream's file without importing the package."""

_FOLDERS = ("light_compute_project/src", "light_compute_project/scripts", "light_compute_project/tests")
_MAKE_SOURCES_UP = ("/tests/unit/upstream/", "/tests/integration/upstream/")
_IMPORTERS = ("import_module", "importorskip")
_IN_STRINGS = re.compile(r"(?:^|[;\n])\s*from (litgpt(?:\.\w+)*) import (\w+(?:, *\w+)*)")


def imported_names(root: Path) -> dict[str, list[str]]:
    """Dotted names such as `litgpt.model.GPT`, each with the places `path:line` that use it.

    An attribute of an imported name, such as `GPT.from_name`, is returned in full; whether its last parts are members
    of a class or attributes of an object is not known here (`signatures.canonical` removes the latter).

    Args:
        root: Top folder of a checkout of this project.
    """
    found: dict[str, list[str]] = {name: [f"{_FOLDERS[0]}/litgpt_core/model/registry.py"] for name in READ_BY_PATH}
    for folder in _FOLDERS:
        for path in sorted((root / folder).rglob("*.py")):
            place = path.relative_to(root).as_posix()
            if any(part in place for part in _MAKE_SOURCES_UP):
                continue
            for name, line in names_in(path.read_text(encoding="utf-8")):
                found.setdefault(name, []).append(f"{place}:{line}")
    return dict(sorted(found.items()))


def names_in(source: str) -> Iterator[tuple[str, int]]:
    """Every name of LitGPT's that a source text uses, with its line."""
    tree = ast.parse(source)
    bound: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if _is_upstreams(alias.name):
                    bound[alias.asname or PACKAGE] = alias.name if alias.asname else PACKAGE
                    yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and _is_upstreams(node.module or ""):
            for alias in node.names:
                full = str(node.module) if alias.name == "*" else f"{node.module}.{alias.name}"
                bound[alias.asname or alias.name] = full
                yield full, node.lineno
        elif isinstance(node, ast.Call) and (name := _loaded(node)):
            yield name, node.lineno
        elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Call) and (name := _loaded(node.value)):
            bound |= {target.id: name for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            for module, names in _IN_STRINGS.findall(node.value):
                for name in re.split(r", *", names):
                    yield f"{module}.{name}", node.lineno
    yield from _attributes(tree, bound)


def _attributes(tree: ast.Module, bound: dict[str, str]) -> Iterator[tuple[str, int]]:
    inner = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Attribute) or id(node) in inner:
            continue
        parts: list[str] = []
        expression: ast.expr = node
        while isinstance(expression, ast.Attribute):
            parts.append(expression.attr)
            expression = expression.value
        if isinstance(expression, ast.Name) and expression.id in bound:
            yield ".".join([bound[expression.id], *reversed(parts)]), node.lineno


def _loaded(call: ast.Call) -> str | None:
    called = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    first = call.args[0] if call.args else None
    name = first.value if isinstance(first, ast.Constant) else None
    return name if called in _IMPORTERS and isinstance(name, str) and _is_upstreams(name) else None


def _is_upstreams(module: str) -> bool:
    return module == PACKAGE or module.startswith(PACKAGE + ".")
