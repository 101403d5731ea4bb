"""Renders chat templates in child processes with limits of time, memory and output; see `template_child`.

    render_all(template, values, [(messages, add_generation_prompt), ...]) -> one text for each

A child is started at the first use, kept for later ones, and ended when it takes too long. At most `CHILDREN` run at a
time; further callers wait. Callable from any thread.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from litgpt_core.core.errors import CheckpointError, ConfigError, EnvironmentProblem
from litgpt_core.core.line_child import LineChild

SECONDS = 3.0
"""Longest time for one request; a conversation of 1,000 turns takes a few milliseconds."""
QUIET_S = 10.0
"""Seconds for which a template that took too long is refused without another try."""
MORE_CHARS = 200_000
"""Characters that a template may write besides four times the conversation's own."""
CHILDREN = 2
_START_SECONDS = 60.0
_SCRIPT = Path(__file__).with_name("template_child.py")

Conversation = tuple[Sequence[Mapping[str, str]], bool]
"""Messages (role, content), and whether the text ends where the assistant's answer begins."""


class ChatTemplateError(CheckpointError):
    """A model's chat template fails, takes too long, or leaves out messages."""


class ChatTemplateRefusal(ConfigError):
    """A model's chat template refuses a conversation with a message of its own."""


def render_all(
    template: str, values: Mapping[str, str], conversations: Sequence[Conversation], *, source: str
) -> list[str | ChatTemplateError | ChatTemplateRefusal]:
    """The text of each conversation, or the error it caused.

    Args:
        template: Jinja source.
        values: Variables besides the messages: special tokens.
        conversations: Rendered one after the other, by one child.
        source: The template's file, for messages.

    Raises:
        ChatTemplateError: Together they take longer than `SECONDS`, or more memory than the child has.
        EnvironmentProblem: No child process can be started.
    """
    listed = [{"messages": list(messages), "prompt": prompt} for messages, prompt in conversations]
    size = max((sum(len(m["content"]) for m in messages) for messages, _ in conversations), default=0)
    request = {
        "template": template,
        "values": dict(values),
        "conversations": listed,
        "max_chars": 4 * size + MORE_CHARS,
    }
    if _slow_until.get(template, 0.0) > time.monotonic():
        raise _failed(source, f"it took longer than {SECONDS:g} s a moment ago")
    replies = _answer(request)
    if replies is None:
        if len(_slow_until) > 1000:
            _slow_until.clear()
        _slow_until[template] = time.monotonic() + QUIET_S
        raise _failed(source, f"it takes longer than {SECONDS:g} s, or ended its process")
    return [_result(reply, source) for reply in replies]


def _result(reply: Mapping[str, str], source: str) -> str | ChatTemplateError | ChatTemplateRefusal:
    if "text" in reply:
        return reply["text"]
    if "refused" in reply:
        return ChatTemplateRefusal(
            f"The chat template in {source} refuses this conversation: {reply['refused']}",
            needed="messages in an order that the template supports",
            fix="leave the system prompt out, or alternate user and assistant messages",
        )
    return _failed(source, reply["failed"])


def _failed(source: str, reason: str) -> ChatTemplateError:
    return ChatTemplateError(
        f"The chat template in {source} fails: {reason}.",
        needed="a Jinja template as Hugging Face's tokenizers use them",
        fix="correct the file, or choose a style: --style NAME",
    )


# ---- the children

_slow_until: dict[str, float] = {}
_idle: list[LineChild] = []
_owner = os.getpid()
_turn = threading.BoundedSemaphore(CHILDREN)


def _answer(request: Mapping[str, Any]) -> list[dict[str, str]] | None:
    """The child's reply; None if it had to be ended or ended by itself."""
    with _turn:
        child = _taken() or _started()
        reply: list[dict[str, str]] | None = child.ask(request, seconds=SECONDS)
        if reply is None:
            child.end()
        else:
            _idle.append(child)
        return reply


def _taken() -> LineChild | None:
    """A child that waits for work."""
    global _owner
    if _owner != os.getpid():  # this process was forked: the children belong to its parent
        _idle.clear()
        _owner = os.getpid()
    while True:
        try:
            child = _idle.pop()
        except IndexError:
            return None
        if child.is_running:
            return child


def _started() -> LineChild:
    nothing = {"template": "", "values": {}, "conversations": [], "max_chars": 0}
    try:
        child = LineChild(_SCRIPT)
    except OSError as problem:
        raise EnvironmentProblem(
            f"The process that renders chat templates cannot be started: {problem.strerror or problem}."
        ) from None
    if child.ask(nothing, seconds=_START_SECONDS) is None:
        child.end()
        raise EnvironmentProblem(
            "The process that renders chat templates ended at its start.", needed="the package jinja2"
        )
    return child


@atexit.register
def end_all() -> None:
    """End the children of this process."""
    while (child := _taken()) is not None:
        child.end()
