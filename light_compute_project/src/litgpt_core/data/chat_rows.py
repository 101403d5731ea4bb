"""One JSON row to a conversation, in each of the three formats that `conversations` describes.

Everything that can be wrong with a row is an `UnusableError` here. No files.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from litgpt_core.core.errors import ConfigError
from litgpt_core.data.prepared import canonical_json
from litgpt_core.prompts.message import Message
from litgpt_core.prompts.turns import arrange

_ROLES = {
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("user", "human"), "user"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "bing", "bard", "model"), "assistant"),
}


@dataclass(frozen=True, kw_only=True)
class ChatExample:
    """Alternating messages: an optional system message, then user first; the last one is an answer to train on."""

    identity: str
    """The log's conversation id, or a hash of the messages; decides whether it is held out."""
    messages: tuple[Message, ...]
    refused: frozenset[int] = frozenset()
    """Answers, counted from 0, that were rated -1: they stay in the context but are no targets."""

    @property
    def answers(self) -> tuple[str, ...]:
        """The assistant's messages, in order."""
        return tuple(message.content for message in self.messages if message.role == "assistant")

    def content(self) -> list[list[str]]:
        """The messages as plain values."""
        return [[message.role, message.content] for message in self.messages]


class UnusableError(Exception):
    """A line cannot be used; the message says why. Caught where the line's number is known."""


# ---- OpenAI and ShareGPT ----


def from_messages(row: dict[str, Any]) -> ChatExample:
    """A row that holds an entire conversation, under `messages` or `conversations`."""
    key, role_key, text_key = ("messages", "role", "content")
    if key not in row:
        key, role_key, text_key = ("conversations", "from", "value")
    listed = row[key]
    if not isinstance(listed, list) or not listed:
        raise UnusableError(f"{key} is not a list of messages")
    messages = []
    for number, item in enumerate(listed, start=1):
        if not isinstance(item, dict):
            raise UnusableError(f"message {number} is not an object")
        role = item.get(role_key)
        if role not in _ROLES:
            raise UnusableError(f"message {number} has {role_key}={role!r}")
        messages.append(Message(role=_ROLES[role], content=_text(item.get(text_key), number)))  # type: ignore[arg-type]
    try:
        return _conversation(messages, identity=None)
    except ConfigError as problem:
        raise UnusableError(problem.given) from None


def _text(content: object, number: int) -> str:
    """Plain text, or OpenAI's list of text parts."""
    if isinstance(content, list) and all(isinstance(p, dict) and isinstance(p.get("text"), str) for p in content):
        content = "".join(part["text"] for part in content)
    if not isinstance(content, str):
        raise UnusableError(f"message {number} is not text")
    return _encodable(content)


def _encodable(text: str) -> str:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise UnusableError("it contains a lone surrogate, which UTF-8 cannot represent") from None
    return text


def _conversation(
    messages: list[Message], *, identity: str | None, refused: frozenset[int] = frozenset()
) -> ChatExample:
    """Arranged as at inference (`prompts.turns`). ConfigError for a conversation without a message to answer."""
    joined = [message for message in arrange(messages) if message.content or message.role != "system"]
    hashed = hashlib.sha256(canonical_json([[m.role, m.content] for m in joined])).hexdigest()
    return ChatExample(identity=identity or hashed, messages=tuple(joined), refused=refused)


# ---- the chat log ----


@dataclass(frozen=True, kw_only=True)
class _Exchange:
    id: str
    turn: int
    user: str
    assistant: str
    system: str
    rating: int


class LoggedExchanges:
    """Exchanges by conversation and turn, and ratings by exchange, collected line by line."""

    def __init__(self) -> None:
        self.turns: dict[str, dict[int, _Exchange]] = {}
        self.ratings: dict[str, int] = {}
        self.replaced = 0
        """Answers that a later one replaced, and the exchanges that had followed them."""

    def add(self, row: dict[str, Any]) -> str | None:
        """Add one row; returns the conversation it belongs to, None for a rating."""
        if row.get("type") == "rating":
            if not isinstance(row.get("id"), str) or row.get("rating") not in (-1, 0, 1):
                raise UnusableError("a rating needs id and rating -1, 0 or 1")
            self.ratings[row["id"]] = int(row["rating"])
            return None
        for key in ("user", "assistant"):
            if not isinstance(row.get(key), str):
                raise UnusableError(f"it has no text under {key!r}, and neither messages nor conversations")
            if not row[key].strip():
                raise UnusableError(f"{key!r} is empty")
        turn, system, rating = row.get("turn", 0), row.get("system") or "", row.get("rating") or 0
        if isinstance(turn, bool) or not isinstance(turn, int) or turn < 0:
            raise UnusableError(f"turn={turn!r} is not a whole number from 0")
        if not isinstance(system, str) or rating not in (-1, 0, 1):
            raise UnusableError(f"system={system!r}, rating={rating!r}")
        fallback_id = hashlib.sha256(canonical_json([row["user"], row["assistant"], row.get("timestamp")])).hexdigest()
        exchange = _Exchange(
            id=str(row.get("id") or fallback_id),
            turn=turn,
            user=_encodable(row["user"]),
            assistant=_encodable(row["assistant"]),
            system=_encodable(system),
            rating=rating,
        )
        name = str(row.get("conversation_id") or exchange.id)
        turns = self.turns.setdefault(name, {})
        if turn in turns:  # a regenerated answer: what followed the earlier one belongs to it
            for later in [number for number in turns if number >= turn]:
                del turns[later]
                self.replaced += 1
        turns[turn] = exchange
        return name

    def conversations(self) -> dict[str, ChatExample]:
        """Each conversation with its turns in order; its system message is the first one found."""
        found = {}
        for name, turns in self.turns.items():
            exchanges = [turns[turn] for turn in sorted(turns)]
            system = next((exchange.system for exchange in exchanges if exchange.system), "")
            messages = [Message(role="system", content=system)] if system else []
            for exchange in exchanges:
                messages.append(Message(role="user", content=exchange.user))
                messages.append(Message(role="assistant", content=exchange.assistant))
            down = {n for n, e in enumerate(exchanges) if self.ratings.get(e.id, e.rating) == -1}
            found[name] = _conversation(messages, identity=name, refused=frozenset(down))
        return found
