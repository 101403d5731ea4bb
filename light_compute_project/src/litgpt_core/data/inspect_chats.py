"""What is in a file of conversations, for `lcp data inspect`."""

from __future__ import annotations

import statistics
from pathlib import Path

from litgpt_core.core.errors import DataError
from litgpt_core.data.conversations import read_conversations
from litgpt_core.data.settings import ChatDataSettings

MOST_BYTES = 64_000_000
"""Larger files are taken for a corpus: conversations are read as a whole."""


def inspect_chats(path: str) -> dict[str, str]:
    """Numbers of conversations, what was recognised and left out, and the beginning of the first one.

    Args:
        path: A file.

    Returns:
        Lines as name -> text; none if it is not a file of JSON below `MOST_BYTES` that holds conversations.
    """
    file = Path(path).expanduser()
    if ".json" not in file.name or not file.is_file() or file.stat().st_size > MOST_BYTES:
        return {}
    try:
        conversations, counts = read_conversations(ChatDataSettings(path=path))
    except DataError:
        return {}
    if not conversations:
        return {}
    answers = [answer for each in conversations for answer in each.answers]
    longest = max(len(each.messages) for each in conversations)
    first = " | ".join(f"{message.role}: {message.content}" for message in conversations[0].messages)
    return {
        "conversations": f"{len(conversations):,}, at most {longest} messages each",
        "formats": ", ".join(f"{count:,} rows as {name}" for name, count in counts.formats.most_common()),
        "answers": f"{len(answers):,}; median {statistics.median(map(len, answers)):,.0f} characters",
        "left out": counts.summary() or "nothing",
        "sample": " ".join(first.split())[:300],
        "train on it": f"lcp train +experiment=finetune_chat data.path={path}",
    }
