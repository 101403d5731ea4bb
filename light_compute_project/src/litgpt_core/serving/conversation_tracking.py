"""Assigns exchanges to conversations if the client sends no conversation id: clients send the whole history each time.

known history (answered here)      the next turn of that conversation
unknown history                    a new conversation; its latest exchanges, up to `HISTORY_TURNS` and `HISTORY_CHARS`,
                                   are logged with rating -1, so that training uses them as context only
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

from litgpt_core.prompts.message import Message
from litgpt_core.prompts.turns import Turn, turns_of
from litgpt_core.serving.chat_log import LoggedExchange

if TYPE_CHECKING:
    from litgpt_core.serving.chat_log import ExchangeLog

RoleText = tuple[str, str]
"""Role and text."""

MAX_CONVERSATIONS = 10_000
"""Number of conversations whose latest state is kept in memory."""
HISTORY_TURNS = 20
HISTORY_CHARS = 32_000
"""Most of an unknown history that is logged: a client that sends a long one each time does not fill the disk."""


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
    """Append an exchange to the log under its conversation, in one write; returns its id. Raises as `add`."""
    messages = [Message(role=role, content=text) for role, text in exchange.messages]  # type: ignore[arg-type]
    system, turns = turns_of(messages)
    conversation, turn = exchange.conversation_id, exchange.turn
    lines: list[LoggedExchange] = []
    if conversation is None:
        found = known.find(exchange.messages[:-1])
        conversation, turn = found or (uuid.uuid4().hex, None)
        if found is None:
            history = _latest(turns[:-1])
            turn = len(history)
            lines = [
                LoggedExchange(
                    user=past.user,
                    assistant=past.answer or "",
                    model="history",
                    settings={},
                    conversation_id=conversation,
                    turn=place,
                    rating=-1,
                )
                for place, past in enumerate(history)
            ]
    turn = len(turns) - 1 if turn is None else turn
    answered = LoggedExchange(
        user=turns[-1].user,
        assistant=exchange.answer,
        model=exchange.model,
        settings=exchange.settings,
        conversation_id=conversation,
        turn=turn,
        system=system or None,
    )
    log.add([*lines, answered])
    known.keep([*exchange.messages, ("assistant", exchange.answer)], conversation_id=conversation, turns=turn + 1)
    return answered.id


def _latest(past: Sequence[Turn]) -> list[Turn]:
    """The latest exchanges within the limits; no greeting and no empty answer: the log's format has none."""
    kept: list[Turn] = []
    chars = 0
    for turn in reversed(past[-HISTORY_TURNS:]):
        chars += len(turn.user) + len(turn.answer or "")
        if chars > HISTORY_CHARS:
            break
        if turn.user.strip() and (turn.answer or "").strip():
            kept.insert(0, turn)
    return kept


def _digest(messages: Sequence[RoleText]) -> bytes:
    return hashlib.sha256(json.dumps([list(said) for said in messages]).encode()).digest()
