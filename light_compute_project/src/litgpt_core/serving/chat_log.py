"""The log of finished exchanges: one JSON line each, never interleaved or corrupted by a crash or another writer.

    {"timestamp", "user", "assistant", "id", "conversation_id", "turn", "system", "model", "settings", "rating": null}
    {"timestamp", "type": "rating", "id", "rating": 1 | -1 | 0}          later; the last one of an id counts

A line is one write to a file opened for appending, under a lock between processes. At `max_bytes` the file is rotated
to `NAME.1`, and so on (higher is older), up to `keep` files. `data.conversations` reads them as training data.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import threading
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from litgpt_core.core.errors import DataError
from litgpt_core.core.lock import exclusive

logger = logging.getLogger(__name__)

READY = 10
"""Minimum number of conversations for fine-tuning."""


class ExchangeLog:
    """The log of one server; several may write to one file.

    Args:
        path: The current file.
        max_bytes: Size at which the file is rotated.
        keep: Number of rotated files to keep.

    Raises:
        DataError: The file cannot be written.
    """

    def __init__(self, path: Path, *, max_bytes: int = 64_000_000, keep: int = 20) -> None:
        self.path, self._max_bytes, self._keep = Path(path), max_bytes, keep
        self._lock = threading.Lock()
        self._conversations: set[str] = set()
        self._ids: set[str] = set()
        self._counted = (0, -1)  # offset up to which the file with this inode has been counted
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._terminate_incomplete_line()
        except OSError as problem:
            raise DataError(
                f"The chat log {self.path} cannot be written: {problem.strerror or problem}.",
                needed="a file that may be appended to",
                fix="--chat_log FILE, or --no_chat_log",
            ) from None
        with self._lock:
            for file in reversed(self.files()):
                self._count(file)

    def files(self) -> list[Path]:
        """The log's files, newest first."""
        rotated = (self.path.with_name(f"{self.path.name}.{i}") for i in range(1, self._keep + 1))
        return [file for file in (self.path, *rotated) if file.is_file()]

    @property
    def conversations(self) -> int:
        """Number of conversations logged so far, by any process."""
        with self._lock:
            self._count(self.path)
            return len(self._conversations)

    def add(
        self,
        *,
        user: str,
        assistant: str,
        model: str,
        settings: dict[str, Any],
        conversation_id: str | None = None,
        turn: int = 0,
        system: str | None = None,
        exchange_id: str | None = None,
        rating: int | None = None,
    ) -> str:
        """Append one exchange; returns its id. Raises OSError if the file can no longer be written."""
        exchange_id = exchange_id or uuid.uuid4().hex
        conversation_id = conversation_id or exchange_id
        self._append(
            {
                "timestamp": _now(),
                "user": user,
                "assistant": assistant,
                "id": exchange_id,
                "conversation_id": conversation_id,
                "turn": turn,
                "system": system,
                "model": model,
                "settings": settings,
                "rating": rating,
            }
        )
        with self._lock:
            self._ids.add(exchange_id)
            self._conversations.add(conversation_id)
        return exchange_id

    def rate(self, exchange_id: str, rating: int) -> bool:
        """Append a rating (1, -1, or 0 to remove it); False if the log has no such exchange."""
        with self._lock:
            self._count(self.path)
            known = exchange_id in self._ids
        if known:
            self._append({"timestamp": _now(), "type": "rating", "id": exchange_id, "rating": rating})
        return known

    # --- the files

    def _append(self, row: dict[str, Any]) -> None:
        line = (json.dumps(row, ensure_ascii=False) + "\n").encode("utf-8", errors="replace")
        with self._lock, exclusive(self.path.with_name(f".{self.path.name}.lock"), purpose="the chat log", keep=True):
            self._rotate(len(line))
            handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                _write_all(handle, line)
                os.fsync(handle)
            finally:
                os.close(handle)

    def _rotate(self, coming: int) -> None:
        if not self.path.is_file() or self.path.stat().st_size + coming <= self._max_bytes:
            return
        self._count(self.path)
        for i in range(self._keep, 0, -1):
            older = self.path.with_name(f"{self.path.name}.{i}")
            newer = self.path if i == 1 else self.path.with_name(f"{self.path.name}.{i - 1}")
            if newer.exists():
                newer.replace(older)
        logger.info("%s was full: rotated to %s.1", self.path.name, self.path.name)

    def _terminate_incomplete_line(self) -> None:
        """End the incomplete line that a crash may have left, so that the next line is separate."""
        with exclusive(self.path.with_name(f".{self.path.name}.lock"), purpose="the chat log", keep=True):
            handle = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                size = os.fstat(handle).st_size
                if size and os.pread(handle, 1, size - 1) != b"\n":
                    _write_all(handle, b"\n")
            finally:
                os.close(handle)

    def _count(self, file: Path) -> None:
        """Count the lines of a file that were not counted yet."""
        try:
            with file.open("rb") as stream:
                inode = os.fstat(stream.fileno()).st_ino
                start = self._counted[0] if inode == self._counted[1] else 0
                if file == self.path and self._counted[1] not in (-1, inode):
                    self._count_rotated()
                if start > os.fstat(stream.fileno()).st_size:  # another file in the same place
                    start = 0
                stream.seek(start)
                data = stream.read()
        except OSError:
            return
        complete = data[: data.rfind(b"\n") + 1]
        for line in complete.splitlines():
            try:
                row = json.loads(line)
                if row.get("type") is None and isinstance(row.get("assistant"), str):
                    self._ids.add(str(row.get("id")))
                    self._conversations.add(str(row.get("conversation_id") or row.get("id")))
            except (ValueError, AttributeError):
                continue
        if file == self.path:
            self._counted = (start + len(complete), inode)

    def _count_rotated(self) -> None:
        """Another process rotated the file, perhaps several times: count all files up to the one known before."""
        for older in self.files()[1:]:
            self._count(older)
            with contextlib.suppress(OSError):
                if older.stat().st_ino == self._counted[1]:
                    break


def _write_all(handle: int, data: bytes) -> None:
    while data:
        data = data[os.write(handle, data) :]


def _now() -> str:
    return datetime.now(UTC).astimezone().isoformat(timespec="milliseconds")
