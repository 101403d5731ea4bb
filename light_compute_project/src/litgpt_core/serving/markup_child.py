"""Colours code and converts formulas in a process of its own, which `markup_process` starts. Imports nothing of ours.

Code and formulas are what a model or a stranger wrote: Pygments' patterns can be made to run for ever, and while they
do the interpreter does nothing else. A process can be limited and ended.

    stdin    one line of JSON per request: {"code": [{"language", "text"}],
             "formulas": [{"source", "display"}], "seconds"}
    stdout   one line per request: {"code": [[[kind, text], ...]], "formulas": [[tag, attributes, children or text]]},
             null for what has no lexer or is no formula
"""

from __future__ import annotations

import html
import json
import signal
import sys
from collections.abc import Mapping
from typing import Any
from xml.etree.ElementTree import Element

from pygments.lexers import get_lexer_by_name
from pygments.token import Comment, Generic, Keyword, Name, Number, String, Token
from pygments.util import ClassNotFound

MEMORY = 512 * 1024**2
"""Bytes of address space."""
KINDS = (
    (Comment, "comment"),
    (String, "string"),
    (Number, "number"),
    (Keyword, "keyword"),
    (Name.Function, "name"),
    (Name.Class, "name"),
    (Name.Tag, "keyword"),
    (Name.Attribute, "name"),
    (Name.Builtin, "builtin"),
    (Name.Decorator, "builtin"),
    (Name.Exception, "builtin"),
    (Generic.Deleted, "deleted"),
    (Generic.Inserted, "inserted"),
    (Generic.Heading, "keyword"),
)
"""Pygments' token type -> kind; all others have none."""


def coloured(language: str, text: str) -> list[list[str]] | None:
    """Code as tokens with their kinds, which join to the code; None for a language without a lexer."""
    try:
        lexer = get_lexer_by_name(language, stripnl=False, ensurenl=False)
    except ClassNotFound:
        return None
    tokens: list[list[str]] = []
    for token, part in lexer.get_tokens(text):
        kind = _kind(token)
        if tokens and tokens[-1][0] == kind:
            tokens[-1][1] += part
        elif part:
            tokens.append([kind, part])
    return tokens


def _kind(token: Any) -> str:
    return next((name for kind, name in KINDS if token in kind), "") if token is not Token else ""


def formula(source: str, *, display: bool) -> list[Any] | None:
    """TeX as a tree of MathML; None for what is no formula, or where latex2mathml is not installed."""
    try:
        from latex2mathml.converter import convert_to_element
    except ImportError:
        return None
    try:
        return _tree(convert_to_element(source, display="block" if display else "inline"))
    except Exception:  # whatever it raises for what is no TeX
        return None


def _tree(element: Element) -> list[Any]:
    inside: Any = [_tree(child) for child in element] or html.unescape(element.text or "")
    return [element.tag, dict(element.attrib), inside]


def answer(request: Mapping[str, Any]) -> dict[str, Any]:
    """The reply to a request; see the module docstring."""
    return {
        "code": [coloured(one["language"], one["text"]) for one in request["code"]],
        "formulas": [formula(one["source"], display=one["display"]) for one in request["formulas"]],
    }


def main() -> None:
    """Answer requests until stdin ends."""
    if sys.platform != "win32":
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for line in sys.stdin:
        request = json.loads(line)
        if hasattr(signal, "alarm"):  # ends this process even if its parent is gone
            signal.alarm(int(request["seconds"]) + 2)
        reply = json.dumps(answer(request))
        if hasattr(signal, "alarm"):
            signal.alarm(0)
        sys.stdout.write(reply + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
