"""Fields of OpenAI's schema that this server cannot honour and does not ignore in silence."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pydantic_core import PydanticCustomError

_TOOL_MODES = ("auto", "none")


def _is_plain_text(value: object) -> bool:
    return isinstance(value, Mapping) and value.get("type") == "text"


def _is_free(value: object) -> bool:
    return isinstance(value, str) and value in _TOOL_MODES


_ALLOWED: dict[str, tuple[Callable[[Any], bool], str]] = {
    "tool_choice": (_is_free, "the model may not be made to call a tool; auto or none is supported"),
    "function_call": (_is_free, "the model may not be made to call a function; auto or none is supported"),
    "response_format": (_is_plain_text, "the form of an answer cannot be enforced; only type text is supported"),
    "logit_bias": (lambda v: v == {}, "biases of single tokens are not supported"),
    "best_of": (lambda v: v == 1 and not isinstance(v, bool), "choosing among several answers is not supported"),
    "suffix": (lambda v: v == "", "text after the completion is not supported"),
    "modalities": (lambda v: v == ["text"], "only text is generated"),
    "audio": (lambda _: False, "only text is generated"),
    "prediction": (lambda _: False, "predicted outputs are not supported"),
    "web_search_options": (lambda _: False, "web search is not supported"),
}
"""Field: which values change nothing, and why others are refused."""


def refuse_unsupported(given: Mapping[str, Any]) -> None:
    """Raise for the first field whose value this server cannot honour. `given` has no nulls."""
    for name, (allowed, reason) in _ALLOWED.items():
        if name in given and not allowed(given[name]):
            raise PydanticCustomError("unsupported_field", "{reason}", {"field": name, "reason": reason})
