"""What errors say to type: every `lcp VERB --option` in the source exists, and no retired script is named."""

from __future__ import annotations

import ast
import contextlib
import functools
import io
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from litgpt_core import cli
from litgpt_core.config.source import option_names

SOURCE = Path(cli.__file__).parent
SCRIPTS = {path.name for path in (SOURCE.parents[1] / "scripts").glob("*.py")}
COMMAND = re.compile(r"\blcp ([a-z_]+)((?: (?!lcp )[^\s`'\",;)]+)*)")


def texts() -> Iterator[tuple[str, str]]:
    """`(file:line, text)` of every string in the source that is no docstring; f-strings with `{}` for their values."""
    for path in sorted(SOURCE.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        docstrings = {
            id(node.body[0].value)
            for node in ast.walk(tree)
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
            and node.body
            and isinstance(node.body[0], ast.Expr)
        }
        for node in ast.walk(tree):
            place = f"{path.relative_to(SOURCE).as_posix()}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.JoinedStr):
                yield place, "".join(str(v.value) if isinstance(v, ast.Constant) else "{}" for v in node.values)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
                yield place, node.value


@functools.cache
def help_of(verb: str) -> str:
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.suppress(SystemExit):
        cli.main([verb, "--help"])
    return out.getvalue()


def test_every_command_in_a_message_exists_with_its_options() -> None:
    wrong, seen = [], 0
    for place, text in texts():
        for found in COMMAND.finditer(text):
            seen += 1
            verb, rest = found[1], found[2].split()
            if verb not in {*cli.VERBS, *cli.ALIASES}:
                wrong.append(f"{place}: lcp {verb}")
                continue
            for word in rest:
                option = re.match(r"(--[a-z][a-z_]*)", word)
                if option and verb != "train" and option[1] not in ("--help", "--config_dir"):
                    sub = f"{verb} {rest[0]}" if verb == "runs" else verb
                    if verb != "runs" and option[1] not in help_of(sub):
                        wrong.append(f"{place}: lcp {verb} {option[1]}")
    assert seen > 30 and not wrong, "\n".join(wrong)


def test_every_experiment_in_a_message_exists() -> None:
    known = set(option_names("experiment"))
    named = {(place, name) for place, text in texts() for name in re.findall(r"\+experiment=([a-z]\w*)", text)}
    invented = {"first", "x"}  # of `lcp init`, of grammar
    assert {pair for pair in named if pair[1] not in known | invented} == set()


def test_fixes_name_commands_and_not_their_scripts() -> None:
    wrong = []
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.keyword) and node.arg in ("fix", "needed"):
                text = ast.unparse(node.value)
                wrong += [
                    f"{path.name}:{node.value.lineno}: {name}"
                    for name in re.findall(r"\b([a-z_]+\.py)\b", text)
                    if name in SCRIPTS
                ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("verb", sorted(cli.VERBS))
def test_every_verb_has_a_page_of_help(verb: str) -> None:
    assert "usage" in help_of(verb)
