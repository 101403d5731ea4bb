"""Chat logs for these tests."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Write = Callable[..., Path]


@pytest.fixture
def write_rows(tmp_path: Path) -> Write:
    """Write rows (objects as JSON, text as it is) to a JSONL file and return its path."""

    def write(*rows: Any, name: str = "chat_history.jsonl") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        return path

    return write


@pytest.fixture
def exchange() -> Callable[..., dict[str, Any]]:
    """A row of the chat log."""

    def make(user: str, assistant: str, *, conversation: str = "c", turn: int = 0, **more: Any) -> dict[str, Any]:
        return {
            "timestamp": "2026-01-01T00:00:00+00:00",
            "user": user,
            "assistant": assistant,
            "id": f"{conversation}-{turn}-{assistant}",
            "conversation_id": conversation,
            "turn": turn,
            "system": None,
            "model": "m",
            "settings": {},
            "rating": None,
            **more,
        }

    return make
