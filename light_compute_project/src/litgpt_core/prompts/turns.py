"""Checks the order of messages: an optional system prompt, then alternating user and assistant messages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from litgpt_core.core.errors import ConfigError
from litgpt_core.prompts.message import Message


@dataclass(frozen=True, kw_only=True)
class Turn:
    """A user message and its answer."""

    user: str
    answer: str | None
    """None for the last turn if it has not been answered."""


def turns_of(messages: Sequence[Message]) -> tuple[str | None, list[Turn]]:
    """`(system prompt or None, turns)`.

    Consecutive messages of one role are joined, with an empty line between them.

    Raises ConfigError for a system message that is not the first, and for a conversation that the user does not start.
    """
    system: str | None = None
    joined: list[Message] = []
    for place, message in enumerate(messages):
        if message.role == "system":
            if place:
                raise ConfigError(
                    f"Message {place + 1} is a system message.", needed="a system message must be the first"
                )
            system = message.content
        elif joined and joined[-1].role == message.role:
            joined[-1] = Message(role=message.role, content=f"{joined[-1].content}\n\n{message.content}")
        else:
            joined.append(message)
    if not joined or joined[0].role != "user":
        given = "has no message of the user" if not joined else "begins with the assistant"
        raise ConfigError(f"The conversation {given}.", needed="a conversation that starts with a user message")
    answers = [message.content for message in joined[1::2]]
    users = [message.content for message in joined[::2]]
    padded: list[str | None] = [*answers, *[None] * (len(users) - len(answers))]
    return system, [Turn(user=user, answer=answer) for user, answer in zip(users, padded, strict=True)]
