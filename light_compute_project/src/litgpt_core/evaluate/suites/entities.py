"""Entity tracking in held-out Python: which of the file's names exist at this place?

    def read(path, limit):        a name of this function, its parameter or variable, against
        text = open([path | count])   a name that only other functions of the file have

    parameter   the right name is a parameter
    variable    it is assigned in the function

Both names are the file's own, so that knowing its subject does not help: the function must be read.
"""

from __future__ import annotations

import ast
import random
import re
from collections import defaultdict
from collections.abc import Iterator

from litgpt_core.data.document import Document
from litgpt_core.evaluate.items import Item
from litgpt_core.evaluate.suites.changes import CONTEXT, last_word, line_starts
from litgpt_core.evaluate.suites.material import Material

ITEMS_OF_A_KIND = 400
PER_DOCUMENT = 20
"""Of one kind."""
SHORTEST_NAME = 3
OFFERED = 16
Function = ast.FunctionDef | ast.AsyncFunctionDef


def entities(material: Material, rng: random.Random) -> list[Item]:
    """Items of both kinds from the Python files among the documents; none where there are none."""
    found: dict[str, list[Item]] = defaultdict(list)
    for document, tree in sorted(material.python, key=lambda each: each[0].name):
        candidates = list(_places(document, tree))
        made: dict[str, int] = defaultdict(int)
        for kind, start, name, others in rng.sample(candidates, len(candidates)):
            if made[kind] < PER_DOCUMENT:
                made[kind] += 1
                passage = document.text[max(0, start - CONTEXT) : start]
                wrong = rng.sample(others, min(OFFERED, len(others)))
                found[kind].append(last_word(kind, document, passage, (name, *wrong), keep=2))
    return [item for kind in sorted(found) for item in rng.sample(found[kind], min(len(found[kind]), ITEMS_OF_A_KIND))]


def _places(document: Document, tree: ast.Module) -> Iterator[tuple[str, int, str, list[str]]]:
    """Kind, offset, name and wrong names of every use of a function's own name that the context holds before."""
    functions = [node for node in ast.walk(tree) if isinstance(node, Function)]
    own = {function: names_of(function) for function in functions}
    every = set().union(*(parameters | variables for parameters, variables in own.values())) if own else set()
    lines = line_starts(document.text)
    for function, (parameters, variables) in own.items():
        others = sorted(name for name in every - mentioned(function) if len(name) >= SHORTEST_NAME)
        for node in ast.walk(function):
            if not (others and isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)):
                continue
            name, start = node.id, lines[node.lineno - 1] + node.col_offset
            if name not in parameters | variables or len(name) < SHORTEST_NAME or name == "self":
                continue
            if document.text[start : start + len(name)] != name:
                continue  # columns count UTF-8 bytes: a line with other letters before the name is left out
            if re.search(rf"\b{name}\b", document.text[max(0, start - CONTEXT) : start]):
                yield "parameter" if name in parameters else "variable", start, name, others


def names_of(function: Function) -> tuple[set[str], set[str]]:
    """A function's parameters, and the other names that are assigned in it."""
    parameters = {node.arg for node in ast.walk(function.args) if isinstance(node, ast.arg)}
    stored = {node.id for node in ast.walk(function) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    return parameters, stored - parameters


def mentioned(function: Function) -> set[str]:
    """All names that occur in a function, as whatever."""
    nodes = list(ast.walk(function))
    found = {node.id for node in nodes if isinstance(node, ast.Name)}
    found |= {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    found |= {node.name for node in nodes if isinstance(node, Function | ast.ClassDef)}
    return found | {node.arg for node in nodes if isinstance(node, ast.arg | ast.keyword) and node.arg}
