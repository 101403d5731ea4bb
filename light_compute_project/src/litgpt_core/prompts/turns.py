"""The one rule for the order of messages: serving, the console and training all apply `arrange`.

    given                                       arranged
    system and developer messages, anywhere     one system message at the head, an empty line between them
    consecutive messages of one role            one message, an empty line between them
    assistant messages before the first user    the answer to an empty user message

Nothing is left out. What a style does with the result is not here: `style`, and for styles without a system prompt
`with_system_in_first_turn`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from litgpt_core.core.errors import ConfigError
from litgpt_core.prompts.message import Message

_BETWEEN = "\n\n"


@dataclass(frozen=True, kw_only=True)
class Turn:
    """A user message and its answer."""

    user: str
    """Empty for a conversation that the assistant begins."""
    answer: str | None
    """None for the last turn if it has not been answered."""


def arrange(messages: Sequence[Message]) -> list[Message]:
    """The conversation as an optional system message, then user and assistant in turn, the user first.

    Arranging twice changes nothing. Raises ConfigError for a conversation without a message of the user.
    """
    system = [message.content for message in messages if message.role == "system"]
    joined: list[Message] = []
    for message in messages:
        if message.role == "system":
            continue
        if joined and joined[-1].role == message.role:
            joined[-1] = Message(role=message.role, content=f"{joined[-1].content}{_BETWEEN}{message.content}")
        else:
            joined.append(message)
    if not any(message.role == "user" for message in joined):
        raise ConfigError(
            "The conversation has no message of the user.", needed="a conversation with a message to answer"
        )
    if joined[0].role == "assistant":
        joined.insert(0, Message(role="user", content=""))
    head = [Message(role="system", content=_BETWEEN.join(text for text in system if text))] if system else []
    return [*head, *joined]


def begins_with_greeting(messages: Sequence[Message]) -> bool:
    """Whether the assistant speaks first: its first message answers nothing. True before and after `arrange`."""
    rest = [message for message in messages if message.role != "system" and (message.content or message.role != "user")]
    return bool(rest) and rest[0].role == "assistant"


def turns_of(messages: Sequence[Message]) -> tuple[str | None, list[Turn]]:
    """`(system prompt or None, turns)` of a conversation, arranged. Errors are those of `arrange`."""
    arranged = arrange(messages)
    system = arranged.pop(0).content if arranged[0].role == "system" else None
    answers = [message.content for message in arranged[1::2]]
    users = [message.content for message in arranged[::2]]
    padded: list[str | None] = [*answers, *[None] * (len(users) - len(answers))]
    return system, [Turn(user=user, answer=answer) for user, answer in zip(users, padded, strict=True)]


def with_system_in_first_turn(messages: Sequence[Message]) -> list[Message]:
    """The arranged conversation with its system text at the head of the first user message, for styles without one."""
    arranged = arrange(messages)
    if arranged[0].role != "system":
        return arranged
    texts = [text for text in (arranged[0].content, arranged[1].content) if text]
    return [Message(role="user", content=_BETWEEN.join(texts)), *arranged[2:]]
