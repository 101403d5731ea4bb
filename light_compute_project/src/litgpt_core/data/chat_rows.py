"""Rows to conversations: those that hold a whole one, and the exchanges and ratings of the chat log. No files.

Everything that can be wrong with a row is an `UnusableError`.
"""

from __future__ import annotations

import hashlib
import itertools
from dataclasses import dataclass
from typing import Any

from litgpt_core.core.errors import ConfigError
from litgpt_core.data.chat_formats import Messages, encodable, short
from litgpt_core.data.json_values import UnusableError
from litgpt_core.data.prepared import canonical_json
from litgpt_core.prompts.message import Message
from litgpt_core.prompts.turns import arrange


@dataclass(frozen=True, kw_only=True)
class ChatExample:
    """Alternating messages: an optional system message, then user first; the last one is an answer to train on."""

    identity: str
    """The log's conversation id, or a hash of the messages; decides whether it is held out."""
    messages: tuple[Message, ...]
    refused: frozenset[int] = frozenset()
    """Answers, counted from 0, that were rated -1 or have weight 0: they stay in the context but are no targets."""

    @property
    def answers(self) -> tuple[str, ...]:
        """The assistant's messages, in order."""
        return tuple(message.content for message in self.messages if message.role == "assistant")

    def content(self) -> list[list[str]]:
        """The messages as plain values."""
        return [[message.role, message.content] for message in self.messages]


def from_messages(messages: Messages) -> ChatExample:
    """A conversation whose messages are known, arranged as at inference (`prompts.turns`)."""
    rest = [(message.role, learnt) for message, learnt in messages if message.role != "system"]
    groups = [(role, [learnt for _, learnt in group]) for role, group in itertools.groupby(rest, lambda pair: pair[0])]
    answers = [learnt for role, learnt in groups if role == "assistant"]  # consecutive messages of a role are joined
    refused = {number for number, learnt in enumerate(answers) if not all(learnt)}
    try:
        return _conversation([message for message, _ in messages], identity=None, refused=frozenset(refused))
    except ConfigError as problem:
        raise UnusableError(problem.given) from None


def _conversation(
    messages: list[Message], *, identity: str | None, refused: frozenset[int] = frozenset()
) -> ChatExample:
    """ConfigError for a conversation without a message to answer."""
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
            self.ratings[_name(row["id"])] = int(row["rating"])
            return None
        for key in ("user", "assistant"):
            if not isinstance(row.get(key), str):
                raise UnusableError(f"it has no text under {key!r}, and neither messages nor conversations")
            if not row[key].strip():
                raise UnusableError(f"{key!r} is empty")
        turn, system, rating = row.get("turn", 0), row.get("system") or "", row.get("rating") or 0
        if isinstance(turn, bool) or not isinstance(turn, int) or turn < 0:
            raise UnusableError(f"turn={short(turn)} is not a whole number from 0")
        if not isinstance(system, str) or rating not in (-1, 0, 1):
            raise UnusableError(f"system={short(system)}, rating={short(rating)}")
        told = [row["user"], row["assistant"], row.get("timestamp")]
        fallback_id = hashlib.sha256(canonical_json(told)).hexdigest()
        exchange = _Exchange(
            id=_name(row.get("id")) or fallback_id,
            turn=turn,
            user=encodable(row["user"]),
            assistant=encodable(row["assistant"]),
            system=encodable(system),
            rating=rating,
        )
        name = _name(row.get("conversation_id")) or exchange.id
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


def _name(value: object) -> str:
    """Any JSON value as a name that UTF-8 can represent; empty for what names nothing (null, false, 0, empty)."""
    if not value:
        return ""
    text = value if isinstance(value, str) else canonical_json(value).decode("ascii")
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
