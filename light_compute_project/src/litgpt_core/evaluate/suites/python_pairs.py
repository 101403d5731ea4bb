"""Minimal pairs of Python: held-out code, and the same with one token changed so that it is wrong.

    bracket     `)` `]` `}` replaced by another one                              does not parse
    quote       the closing quote of a string replaced by the other kind         does not parse
    colon       the colon of a statement replaced by a comma or a semicolon      does not parse
    keyword     elif/else, except/finally, for-in/is exchanged                   does not parse
    indent      a block without its indentation, or a line with too much         does not parse
    name        a name that the context uses, and one that the file never uses   both parse
    attribute   the same for `self.NAME`

Both sides have the same context of at most `CONTEXT` characters and end with the line. Replaced names have as many
letters as the right ones and come from other held-out files.
"""

from __future__ import annotations

import ast
import builtins
import io
import keyword
import random
import tokenize
from collections import defaultdict
from collections.abc import Iterator

from litgpt_core.evaluate.items import Item
from litgpt_core.evaluate.suites.changes import CONTEXT, Change, line_starts, pair
from litgpt_core.evaluate.suites.material import Material, parsed

PER_DOCUMENT = 4
"""Items of one kind from one file at most."""
ITEMS_OF_A_KIND = 120
SHORTEST_NAME = 3
OTHER_NAMES = 12
"""Wrong names that are offered for one place; the first that has as many tokens is taken."""
LARGEST_STATEMENT = 8_000
"""Characters of a top-level statement that is parsed again for every change."""

_CLOSING = {")": "]}", "]": ")}", "}": ")]"}
_NAMES = {"name", "attribute"}


def python_pairs(material: Material, rng: random.Random) -> list[Item]:
    """Items of all kinds from the Python files among the documents; none where there are none."""
    words = {document.name: _identifiers(tree) for document, tree in material.python}
    pool: dict[int, list[str]] = defaultdict(list)
    for name in sorted(set().union(*words.values())) if words else ():
        pool[len(name)].append(name)
    found: dict[str, list[Item]] = defaultdict(list)
    for document, tree in sorted(material.python, key=lambda each: each[0].name):
        candidates: dict[str, list[Change]] = defaultdict(list)
        for change in _changes(document.text, tree, pool, words[document.name], rng):
            candidates[change.kind].append(change)
        statements = _Statements(document.text, tree)
        for kind in sorted(candidates):
            made = (
                pair(document, change)
                for change in rng.sample(candidates[kind], len(candidates[kind]))
                if statements.is_wrong(change) is (kind not in _NAMES)
            )
            found[kind] += [item for _, item in zip(range(PER_DOCUMENT), made, strict=False)]
    return [item for kind in sorted(found) for item in rng.sample(found[kind], min(len(found[kind]), ITEMS_OF_A_KIND))]


class _Statements:
    """Which top-level statement a change is in, so that only that one need be parsed again."""

    def __init__(self, text: str, tree: ast.Module) -> None:
        self.text = text
        lines = line_starts(text)
        self.bounds = []
        for node in tree.body:
            decorators = [item.lineno for item in getattr(node, "decorator_list", [])]
            begin, end = min([node.lineno, *decorators]), node.end_lineno or node.lineno
            self.bounds.append((lines[begin - 1], lines[end] if end < len(lines) else len(text)))

    def is_wrong(self, change: Change) -> bool | None:
        """Whether the statement does not parse any more after the change; None outside of
        statements and in very long ones.
        """
        for begin, end in self.bounds:
            if begin <= change.start and change.end <= end <= begin + LARGEST_STATEMENT:
                before, after = self.text[begin : change.start], self.text[change.end : end]
                wrong = change.wrong[:1] if change.kind in _NAMES else change.wrong  # one name parses as another does
                parse = {parsed(before + each + after) is not None for each in wrong}
                return None if len(parse) > 1 else not parse.pop()
        return None


def _changes(
    text: str, tree: ast.Module, pool: dict[int, list[str]], own: set[str], rng: random.Random
) -> Iterator[Change]:
    lines = line_starts(text)
    try:
        tokens = list(tokenize.generate_tokens(io.StringIO(text).readline))
    except (tokenize.TokenError, SyntaxError):
        return
    yield from _names(text, tree, lines, pool, own, rng)
    for place, token in enumerate(tokens[:-1]):
        start, end = (lines[row - 1] + column for row, column in (token.start, token.end))
        if text[start:end] != token.string or start == 0:
            continue
        following = tokens[place + 1].type
        if token.type == tokenize.OP and token.string in _CLOSING:
            yield Change("bracket", start, end, tuple(rng.sample(_CLOSING[token.string], 2)))
        elif token.type == tokenize.OP and token.string == ":" and following in (tokenize.NEWLINE, tokenize.COMMENT):
            yield Change("colon", start, end, tuple(rng.sample(",;", 2)))
        elif token.type == tokenize.STRING and len(token.string) > 3 and token.string[-3:] not in ('"""', "'''"):
            yield Change("quote", end - 1, end, ("'" if token.string[-1] == '"' else '"',))
        elif token.type == tokenize.NAME and (wrong := _exchanged(token.string, tokens[place + 1].string)):
            yield Change("keyword", start, end, (wrong,))
        elif token.type == tokenize.INDENT:
            header = _indentation(tokens[place - 2].line) if place >= 2 else ""
            yield Change("indent", start, end, (header,))
        elif token.type == tokenize.NEWLINE and _goes_on(tokens, place):
            depth = tokens[place + 1].start[1]
            begin = lines[tokens[place + 1].start[0] - 1]
            if depth and text[begin : begin + depth] == " " * depth and rng.random() < 0.2:
                yield Change("indent", begin, begin + depth, (" " * (depth + 4),))


def _exchanged(word: str, following: str) -> str:
    if word == "else":
        return "elif" if following == ":" else ""
    return {"elif": "else", "except": "finally", "in": "is"}.get(word, "")


def _goes_on(tokens: list[tokenize.TokenInfo], place: int) -> bool:
    """Whether a simple statement of the same block follows a simple statement at once."""
    following = tokens[place + 1].type
    return tokens[place - 1].string != ":" and following in (tokenize.NAME, tokenize.OP, tokenize.STRING)


def _indentation(line: str) -> str:
    return line[: len(line) - len(line.lstrip())]


def _names(
    text: str, tree: ast.Module, lines: list[int], pool: dict[int, list[str]], own: set[str], rng: random.Random
) -> Iterator[Change]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            kind, name, line, column = "name", node.id, node.lineno, node.col_offset
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self":
            kind, name, line, column = "attribute", node.attr, node.lineno, node.col_offset + len("self.")
        else:
            continue
        start = lines[line - 1] + column
        end = start + len(name)
        if len(name) < SHORTEST_NAME or hasattr(builtins, name) or text[start:end] != name:
            continue  # the last: columns count UTF-8 bytes, so a line with other letters before the name is left out
        seen = ("self." if kind == "attribute" else "") + name
        if seen not in text[max(0, start - CONTEXT) : start]:
            continue
        others = rng.sample(pool[len(name)], min(OTHER_NAMES, len(pool[len(name)])))
        if wrong := tuple(other for other in others if other not in own):
            yield Change(kind, start, end, wrong)


def _identifiers(tree: ast.Module) -> set[str]:
    found = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    found |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    found |= {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    return {name for name in found if name.isascii() and not keyword.iskeyword(name)}
