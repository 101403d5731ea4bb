"""Conversations from JSON and CSV files: the chat log of `chat.py` and `serve.py`, and every format of `chat_formats`.

    chat log    {"user": ..., "assistant": ..., "conversation_id": ..., "turn": 0, "id": ..., ...}, and later
                {"type": "rating", "id": ..., "rating": 1 | -1 | 0}; rotated files FILE.1, FILE.2, ... are read first
    others      a whole conversation in a row

How a file holds its rows is the subject of `json_values` and `csv_rows`. The keys of a row tell its format, so one
file may mix formats. Rows are processed as follows:

- A row that cannot be used is skipped and reported with its file, place and reason.
- A regenerated answer (same conversation, same turn) replaces the earlier one; exchanges after the earlier one are
  removed.
- The latest rating of an answer counts. An answer rated -1, or of weight 0, is never a target. In the middle of a
  conversation it stays in the context, because later turns refer to it; at the end its exchange is removed.
- The order of messages follows the rule of inference (`prompts.turns`). A greeting before the first question stays in
  the context and is no target.
- An empty answer is treated like one rated -1. An unanswered question at the end is removed. A conversation without an
  answer to train on is dropped.
- Of several conversations with the same messages, the first is kept.

Not here: a row's messages (`chat_rows`), prompt styles and ids (`chat_encoding`), the split (`chat_prepare`).
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from litgpt_core.data.chat_formats import CHAT_LOG, is_logged, messages_of
from litgpt_core.data.chat_rows import ChatExample, LoggedExchanges, from_messages
from litgpt_core.data.csv_rows import file_rows
from litgpt_core.data.files import kind_of, matching_files, missing_path, read_file, shown
from litgpt_core.data.json_values import UnusableError
from litgpt_core.data.prepared import canonical_json
from litgpt_core.data.settings import ChatDataSettings
from litgpt_core.prompts.turns import begins_with_greeting

logger = logging.getLogger(__name__)

SHOWN = 5
"""Unusable rows that the log names; all are counted."""


@dataclass(kw_only=True)
class ReadCounts:
    """How many rows and conversations were read and left out, for the log and meta.json."""

    files: int = 0
    lines: int = 0
    """Rows."""
    broken: list[str] = field(default_factory=list)
    """File, place and reason of each row that was skipped."""
    formats: Counter[str] = field(default_factory=Counter)
    """Rows by the name of their format."""
    replaced: int = 0
    """Answers that a later one replaced, and the exchanges that had followed them."""
    rated_down: int = 0
    """Answers rated -1 or of weight 0: context only, or removed."""
    unanswered: int = 0
    """Unanswered questions at the end of a conversation."""
    empty: int = 0
    """Conversations without an answer to train on."""
    duplicates: int = 0
    """Conversations with the messages of an earlier one."""

    def summary(self) -> str:
        """What was left out, in one line; empty for nothing."""
        counts = {
            "broken row(s) skipped": len(self.broken),
            "answer(s) replaced by a later one": self.replaced,
            "answer(s) rated down or of weight 0, not trained on": self.rated_down,
            "unanswered question(s) removed": self.unanswered,
            "conversation(s) without an answer to train on": self.empty,
            "duplicate conversation(s)": self.duplicates,
        }
        return ", ".join(f"{count:,} {what}" for what, count in counts.items() if count)

    def facts(self) -> dict[str, Any]:
        """The counts, for meta.json."""
        plain = {name: len(value) if isinstance(value, list) else value for name, value in vars(self).items()}
        return plain | {"formats": dict(sorted(self.formats.items()))}


def read_conversations(data: ChatDataSettings) -> tuple[list[ChatExample], ReadCounts]:
    """All usable conversations of a file or folder, in the order of their first rows.

    Raises:
        DataError: The path is missing or unreadable, or no file of the folder matches.
    """
    counts, log, others = ReadCounts(), LoggedExchanges(), list[ChatExample]()
    order: dict[str, ChatExample | None] = {}
    for path in _files(Path(data.path).expanduser(), data.glob):
        counts.files += 1
        for place, row in file_rows(read_file(path), path.name):
            counts.lines += 1
            try:
                if isinstance(row, UnusableError):
                    raise row
                if is_logged(row):
                    name = log.add(row)
                    if name is not None:
                        order.setdefault(f"log {name}", None)
                        counts.formats[CHAT_LOG.name] += 1
                    continue
                found, messages = messages_of(row)
                others.append(from_messages(messages))
                order[f"messages {len(others)}"] = others[-1]
                counts.formats[found.name] += 1
            except UnusableError as problem:
                counts.broken.append(f"{shown(path)}: {place}: {problem}")
    logged, counts.replaced = log.conversations(), log.replaced
    listed = [conversation or logged[key.removeprefix("log ")] for key, conversation in order.items()]
    kept = _without_duplicates([c for c in (_trainable(c, counts) for c in listed) if c is not None], counts)
    _report(data, counts)
    return kept, counts


def _report(data: ChatDataSettings, counts: ReadCounts) -> None:
    if counts.formats:
        listed = ", ".join(f"{count:,} as {name}" for name, count in counts.formats.most_common())
        logger.info("data %s: rows read: %s", data.name, listed)
    for row in counts.broken[:SHOWN]:
        logger.warning("data %s: skipped %s", data.name, row)
    if len(counts.broken) > SHOWN:
        logger.warning("data %s: skipped %s more broken rows", data.name, f"{len(counts.broken) - SHOWN:,}")


# ---- files ----


def _files(path: Path, pattern: str) -> list[Path]:
    """The file, or the folder's matching files; each after its rotated predecessors, oldest first."""
    kind = kind_of(path)
    if kind == "folder":
        chosen = matching_files(path, pattern)
    elif kind == "file" or _rotated(path):
        chosen = [path]
    else:
        raise missing_path(path)
    found = [file for current in chosen for file in (*_rotated(current), *([current] if current.exists() else []))]
    return list(dict.fromkeys(found))


def _rotated(path: Path) -> list[Path]:
    """`FILE.2, FILE.1` in the folder of FILE."""
    numbered = [
        (int(match[1]), file)
        for file in (path.parent.iterdir() if path.parent.is_dir() else ())
        if file.name.startswith(f"{path.name}.")
        and (match := re.fullmatch(r"([1-9]\d*)(?:\.gz)?", file.name[len(path.name) + 1 :]))
    ]
    return [file for _, file in sorted(numbered, reverse=True)]


# ---- selecting answers ----


def _trainable(conversation: ChatExample, counts: ReadCounts) -> ChatExample | None:
    """The conversation up to its last answer that is a target; None if there is none."""
    messages, refused = list(conversation.messages), set(conversation.refused)
    counts.rated_down += len(refused)
    refused |= {number for number, answer in enumerate(conversation.answers) if not answer.strip()}
    refused |= {0} if begins_with_greeting(messages) else set()
    if messages[-1].role == "user":
        messages.pop()
        counts.unanswered += 1
    answers = sum(message.role == "assistant" for message in messages)
    while answers and answers - 1 in refused:
        del messages[-2:]
        answers -= 1
        refused.discard(answers)
    if not answers:
        counts.empty += 1
        return None
    return ChatExample(identity=conversation.identity, messages=tuple(messages), refused=frozenset(refused))


def _without_duplicates(conversations: list[ChatExample], counts: ReadCounts) -> list[ChatExample]:
    first: dict[bytes, ChatExample] = {}
    for conversation in conversations:
        first.setdefault(hashlib.sha256(canonical_json(conversation.content())).digest(), conversation)
    counts.duplicates += len(conversations) - len(first)
    return list(first.values())
