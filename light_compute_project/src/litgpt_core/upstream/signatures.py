"""Signatures of LitGPT's names in one version of its sources, and their comparison. Sources are parsed, never run.

A signature contains what can break a caller: names, order, kinds and defaults of parameters; fields, bases and public
methods of a class; but not annotations. The body is everything else except comments and docstrings.
"""

from __future__ import annotations

import ast
import copy
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from litgpt_core.upstream.git import Git

Sources = Callable[[str], str | None]
"""Returns the text of a file such as `litgpt/model.py`, or None if it does not exist."""

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_SPECIAL = ("__init__", "__call__", "__new__", "__iter__", "__len__", "__getitem__", "__enter__", "__exit__")
_DEEPEST = 8
"""Maximum depth of re-exports to follow."""


@dataclass(frozen=True, kw_only=True)
class Definition:
    """The definition of a name."""

    signature: tuple[str, ...]
    """One line for a function or a value; for a class its bases, fields and public methods."""
    body: str
    """Twelve hexadecimal digits of a hash of the text."""


def folder_sources(parent: Path) -> Sources:
    """Sources in the parent of the package's folder."""

    @cache
    def read(path: str) -> str | None:
        file = parent / path
        return file.read_text(encoding="utf-8") if file.is_file() else None

    return read


def commit_sources(git: Git, commit: str) -> Sources:
    """Sources in a commit that git has."""

    @cache
    def read(path: str) -> str | None:
        return git.maybe("cat-file", "blob", f"{commit}:{path}")

    return read


def canonical(name: str, sources: Sources) -> str | None:
    """`name` without attributes of objects at its end: a module, a name in a module, or a member of a class.

    None where not even the first name in its module is known.
    """
    parts = name.split(".")
    for length in range(len(parts), 1, -1):
        shorter = ".".join(parts[:length])
        if define(shorter, sources) is not None:
            return shorter
    return None if len(parts) > 1 else name


def define(name: str, sources: Sources) -> Definition | None:
    """What a dotted name is in these sources, or None if they do not have it."""
    module, rest = _module_of(name.split("."), sources)
    if module is None:
        return None
    text = sources(module) or ""
    if not rest:
        return Definition(signature=("a module",), body=_digest(ast.parse(text), text))
    found = _find(module, rest[0], sources, depth=0)
    if found is None:
        return None
    if isinstance(found, str):  # an imported module
        return define(".".join([found, *rest[1:]]), sources)
    node, text = found
    for member in rest[1:]:
        inside = _member(node, member, text, sources)
        if inside is None:
            return None
        node = inside
    return Definition(signature=_signature(node), body=_digest(node, text))


def compare(old: Definition | None, new: Definition | None) -> str:
    """same, body changed, signature changed, gone or new."""
    if new is None:
        return "gone"
    if old is None:
        return "new"
    if old.signature != new.signature:
        return "signature changed"
    return "same" if old.body == new.body else "body changed"


def _module_of(parts: list[str], sources: Sources) -> tuple[str | None, list[str]]:
    """The file of the longest prefix that is a module, and the parts after it."""
    for length in range(len(parts), 0, -1):
        stem = "/".join(parts[:length])
        for path in (f"{stem}.py", f"{stem}/__init__.py"):
            if sources(path) is not None:
                return path, parts[length:]
    return None, parts


def _find(path: str, name: str, sources: Sources, *, depth: int) -> tuple[ast.stmt, str] | str | None:
    """The statement that defines `name` in a module with the text it stands in, or the dotted name of a module."""
    text = sources(path)
    if text is None or depth > _DEEPEST:
        return None
    package = path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    found: tuple[ast.stmt, str] | str | None = None
    for node in _statements(ast.parse(text).body):
        if (isinstance(node, (*_FUNCTIONS, ast.ClassDef)) and node.name == name) or (
            isinstance(node, ast.Assign | ast.AnnAssign) and name in _targets(node)
        ):
            found = (node, text)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if alias.name in ("*", name) if alias.asname is None else alias.asname == name:
                    source = name if alias.name == "*" else alias.name
                    found = _follow(_absolute(node, package, path), source, sources, depth=depth) or found
    return found


def _follow(module: str, name: str, sources: Sources, *, depth: int) -> tuple[ast.stmt, str] | str | None:
    whole, rest = _module_of([*module.split("."), name], sources)
    if whole is None:
        return None
    return _find(whole, name, sources, depth=depth + 1) if rest == [name] else f"{module}.{name}" if not rest else None


def _absolute(node: ast.ImportFrom, package: str, path: str) -> str:
    if node.level == 0:
        return node.module or ""
    up = package.split(".")
    up = up[: len(up) - node.level + (1 if path.endswith("/__init__.py") else 0)]
    return ".".join([*up, *([node.module] if node.module else [])])


def _statements(body: list[ast.stmt]) -> list[ast.stmt]:
    """Statements of a module's top level, those under `if` and `try` included."""
    result = []
    for node in body:
        result.append(node)
        if isinstance(node, ast.If):
            result += _statements(node.body + node.orelse)
        elif isinstance(node, ast.Try):
            handlers = [statement for handler in node.handlers for statement in handler.body]
            result += _statements(node.body + handlers + node.orelse + node.finalbody)
    return result


def _targets(node: ast.Assign | ast.AnnAssign) -> set[str]:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    return {name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)}


def _member(node: ast.stmt, name: str, text: str, sources: Sources) -> ast.stmt | None:
    """A method or field of a class, its bases in the same module included."""
    if not isinstance(node, ast.ClassDef):
        return None
    for inside in _statements(node.body):
        if isinstance(inside, (*_FUNCTIONS, ast.ClassDef)) and inside.name == name:
            return inside
        if isinstance(inside, ast.Assign | ast.AnnAssign) and name in _targets(inside):
            return inside
    classes = {other.name: other for other in ast.parse(text).body if isinstance(other, ast.ClassDef)}
    bases = [classes[base.id] for base in node.bases if isinstance(base, ast.Name) and base.id in classes]
    found = (_member(base, name, text, sources) for base in bases if base.name != node.name)
    return next((inside for inside in found if inside is not None), None)


def _signature(node: ast.stmt) -> tuple[str, ...]:
    if isinstance(node, _FUNCTIONS):
        return (_call(node),)
    if not isinstance(node, ast.ClassDef):
        return ("a value",)
    lines = [f"class {node.name}({', '.join(map(ast.unparse, node.bases))})"]
    for inside in node.body:
        if isinstance(inside, _FUNCTIONS) and (not inside.name.startswith("_") or inside.name in _SPECIAL):
            lines.append(_call(inside))
        elif isinstance(inside, ast.AnnAssign) and isinstance(inside.target, ast.Name):
            default = f" = {ast.unparse(inside.value)}" if inside.value else ""
            lines.append(f"{inside.target.id}{default}")
    return tuple(lines)


def _call(node: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    arguments = copy.deepcopy(node.args)
    for argument in ast.walk(arguments):
        if isinstance(argument, ast.arg):
            argument.annotation = None
    kinds = {"classmethod", "staticmethod", "property"}
    names = [d.id for d in node.decorator_list if isinstance(d, ast.Name) and d.id in kinds]
    before = "".join(f"@{name} " for name in names) + ("async " if isinstance(node, ast.AsyncFunctionDef) else "")
    return f"{before}{node.name}({ast.unparse(arguments)})"


def _digest(node: ast.AST, text: str) -> str:
    """A hash of the lines of `node`, without comments' lines, blank lines and docstrings."""
    lines = text.splitlines()
    first, last = getattr(node, "lineno", 1), getattr(node, "end_lineno", len(lines))
    dropped: set[int] = set()
    for inside in ast.walk(node):
        if isinstance(inside, (*_FUNCTIONS, ast.ClassDef, ast.Module)) and ast.get_docstring(inside, clean=False):
            document = inside.body[0]
            dropped |= set(range(document.lineno, (document.end_lineno or document.lineno) + 1))
    kept = [lines[n - 1].rstrip() for n in range(first, last + 1) if n not in dropped]
    kept = [line for line in kept if line.strip() and not line.lstrip().startswith("#")]
    return hashlib.sha256("\n".join(kept).encode()).hexdigest()[:12]
