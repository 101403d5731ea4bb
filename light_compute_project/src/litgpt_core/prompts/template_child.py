"""Renders chat templates in a process of its own, which `template_process` starts. Imports jinja2 and nothing of ours.

A template comes with a model that somebody else made. Jinja's sandbox keeps it from running code, but not from looping
for ever or filling the memory; a process can be limited and ended.

    stdin    one line of JSON per request: {"template", "values", "conversations": [{"messages", "prompt"}], "seconds",
             "max_chars"}
    stdout   one line per request: a list of {"text"}, {"refused"} or {"failed"}, one for each conversation
"""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NoReturn

from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

if TYPE_CHECKING:
    from jinja2 import Template
    from jinja2.nodes import Node
    from jinja2.parser import Parser

MEMORY = 512 * 1024**2
"""Bytes of address space."""


class _Refused(Exception):
    """Raised by `raise_exception` in a template."""


class _Generation(Extension):
    """`{% generation %}` marks the assistant's text in some templates; its content is rendered."""

    tags = {"generation"}  # noqa: RUF012  # as jinja2 declares it

    def parse(self, parser: Parser) -> list[Node]:
        """The enclosed statements."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _refuse(message: object) -> NoReturn:
    raise _Refused(str(message))


def _now(pattern: str) -> str:
    return datetime.now().strftime(pattern)


def _to_json(value: object, ensure_ascii: bool = False, indent: int | None = None) -> str:
    """Replaces Jinja's own filter, which escapes for HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent)


@lru_cache(maxsize=16)
def compiled(source: str) -> Template:
    """The template in a sandbox with the functions that Hugging Face's templates call."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, _Generation]
    )
    environment.filters["tojson"] = _to_json
    environment.globals.pop("lipsum", None)
    environment.globals |= {"raise_exception": _refuse, "strftime_now": _now}
    return environment.from_string(source)


def rendered(request: Mapping[str, Any]) -> list[dict[str, str]]:
    """The reply to a request; see the module docstring."""
    return [_one(request, conversation) for conversation in request["conversations"]]


def _one(request: Mapping[str, Any], conversation: Mapping[str, Any]) -> dict[str, str]:
    length, chunks = 0, []
    try:
        stream = compiled(request["template"]).generate(
            messages=conversation["messages"],
            add_generation_prompt=conversation["prompt"],
            tools=None,
            documents=None,
            **request["values"],
        )
        for chunk in stream:
            length += len(chunk)
            if length > request["max_chars"]:
                return {"failed": f"it writes more than {request['max_chars']:,} characters for this conversation"}
            chunks.append(chunk)
    except _Refused as refusal:
        return {"refused": str(refusal)[:1000]}
    except MemoryError:
        return {"failed": f"it needs more than {MEMORY // 1024**2} MB of memory"}
    except RecursionError:
        return {"failed": "it calls itself without an end"}
    except Exception as problem:  # a template may raise anything
        return {"failed": (str(problem) or type(problem).__name__)[:1000]}
    return {"text": "".join(chunks)}


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
        reply = json.dumps(rendered(request))
        if hasattr(signal, "alarm"):
            signal.alarm(0)
        sys.stdout.write(reply + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
