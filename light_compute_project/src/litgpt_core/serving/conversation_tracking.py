"""Assigns exchanges to conversations if the client sends no conversation id: clients send the whole history each time.

known history (answered here)      the next turn of that conversation
unknown history                    a new conversation; the earlier exchanges are logged with rating -1, so that training
                                   uses them as context only
no history                         a new conversation
"""

from __future__ import annotations

import hashlib
import json
import threading
import uuid
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from litgpt_core.serving.chat_log import ExchangeLog

RoleText = tuple[str, str]
"""Role and text."""

MAX_CONVERSATIONS = 10_000
"""Number of conversations whose latest state is kept in memory."""
SYSTEM = ("system", "developer")


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """A user message and its answer."""

    messages: Sequence[RoleText]
    """All messages of the request; the last is the user's."""
    answer: str
    model: str
    settings: dict[str, Any]
    conversation_id: str | None
    """Given by the client."""
    turn: int | None
    """Given by the client."""


class RecentConversations:
    """Maps the messages of recent conversations to their id and number of turns."""

    def __init__(self) -> None:
        self._states: OrderedDict[bytes, tuple[str, int]] = OrderedDict()
        self._lock = threading.Lock()

    def find(self, messages: Sequence[RoleText]) -> tuple[str, int] | None:
        """(conversation id, turns so far) of a history whose last answer was given here."""
        with self._lock:
            return self._states.get(_digest(messages))

    def keep(self, messages: Sequence[RoleText], *, conversation_id: str, turns: int) -> None:
        """Store the present state of a conversation."""
        with self._lock:
            self._states[_digest(messages)] = (conversation_id, turns)
            while len(self._states) > MAX_CONVERSATIONS:
                self._states.popitem(last=False)


def log_exchange(exchange: Exchange, *, log: ExchangeLog, known: RecentConversations) -> str:
    """Append an exchange to the log under its conversation; returns its id. Raises OSError as `ExchangeLog.add`."""
    system = next((text for role, text in exchange.messages if role in SYSTEM), None)
    conversation, turn = exchange.conversation_id, exchange.turn
    users = sum(role == "user" for role, _ in exchange.messages)
    if conversation is None:
        found = known.find(exchange.messages[:-1])
        conversation, turn = found or (uuid.uuid4().hex, None)
        if found is None:
            history = _pairs(exchange.messages[:-1])
            for place, (user, assistant) in enumerate(history):
                log.add(
                    user=user,
                    assistant=assistant,
                    model="history",
                    settings={},
                    conversation_id=conversation,
                    turn=place,
                    system=system,
                    rating=-1,
                )
            turn = len(history)
    turn = users - 1 if turn is None else turn
    number = log.add(
        user=exchange.messages[-1][1],
        assistant=exchange.answer,
        model=exchange.model,
        settings=exchange.settings,
        conversation_id=conversation,
        turn=turn,
        system=system,
    )
    known.keep([*exchange.messages, ("assistant", exchange.answer)], conversation_id=conversation, turns=turn + 1)
    return number


def _pairs(history: Sequence[RoleText]) -> list[tuple[str, str]]:
    """Pairs of user and assistant messages; empty if the roles do not alternate."""
    rest = [said for said in history if said[0] not in SYSTEM]
    roles = [role for role, _ in rest]
    if roles != ["user", "assistant"] * (len(rest) // 2):
        return []
    return [(rest[i][1], rest[i + 1][1]) for i in range(0, len(rest), 2)]


def _digest(messages: Sequence[RoleText]) -> bytes:
    return hashlib.sha256(json.dumps([list(said) for said in messages]).encode()).digest()
