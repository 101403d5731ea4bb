"""Messages of OpenAI's schema that have no text of their own: tool calls, tool results, refusals.

Prompt styles know system, user and assistant, and text. A call is written as the assistant's text and a result as the
user's, in the markup of Hermes and Qwen 2.5, so that a history with tools is not left out:

    <tool_call>                                   <tool_response>
    {"name": "clock", "arguments": {}}            12:30
    </tool_call>                                  </tool_response>
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from litgpt_core.core.parsing import ParsingError, parse_json
from litgpt_core.prompts.message import Message, Role

_ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "user",
    "function": "user",
}


def text_message(
    role: str, content: str, *, tool_calls: Sequence[Mapping[str, Any]] = (), refusal: str | None = None
) -> Message:
    """A message of OpenAI's roles as one of ours.

    Args:
        role: system, developer, user, assistant, tool or function (KeyError otherwise).
        content: Its text; empty for null.
        tool_calls: Of an assistant message: `{"function": {"name": ..., "arguments": JSON text}}` each.
        refusal: Of an assistant message: its text where content is null.
    """
    if role in ("tool", "function"):
        return Message(role="user", content=f"<tool_response>\n{content}\n</tool_response>")
    parts = [content or refusal or ""]
    parts += [f"<tool_call>\n{_call(call)}\n</tool_call>" for call in tool_calls]
    return Message(role=_ROLES[role], content="\n".join(part for part in parts if part))


def _call(call: Mapping[str, Any]) -> str:
    """Name and arguments as one line of JSON; arguments that are no JSON stay text."""
    function = call.get("function")
    function = function if isinstance(function, Mapping) else call
    arguments = function.get("arguments", {})
    if isinstance(arguments, str):
        with contextlib.suppress(ParsingError):
            arguments = parse_json(arguments)
    return json.dumps({"name": function.get("name"), "arguments": arguments}, ensure_ascii=False)
