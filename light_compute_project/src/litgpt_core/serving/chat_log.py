"""The log of finished exchanges: one JSON line each, never interleaved or corrupted by a crash or another writer.

    {"timestamp", "user", "assistant", "id", "conversation_id", "turn", "system", "model", "settings", "rating": null}
    {"timestamp", "type": "rating", "id", "rating": 1 | -1 | 0}          later; the last one of an id counts

The lines of an exchange are one write to a file opened for appending, under a lock between processes. At `max_bytes`
the file is rotated to `NAME.1`, and so on (higher is older). Nothing is ever deleted: with `keep` rotated files the log
is full, a warning says so, and logging stops until somebody moves files away. `data.conversations` reads the files as
training data. Only the owner can read them, and a link in place of the file is not followed.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import threading
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from litgpt_core.core.errors import DataError
from litgpt_core.core.lock import exclusive
from litgpt_core.core.parsing import parse_json

logger = logging.getLogger(__name__)

PRIVATE = 0o600
"""Permissions of the log."""


class LogFull(OSError):
    """The log has as many files as it may have. Nothing was written."""


@dataclass(frozen=True, kw_only=True)
class LoggedExchange:
    """One line of the log."""

    user: str
    assistant: str
    model: str
    settings: dict[str, Any]
    conversation_id: str
    turn: int
    system: str | None = None
    rating: int | None = None
    id: str = field(default_factory=lambda: uuid.uuid4().hex)


class ExchangeLog:
    """The log of one server; several may write to one file.

    Args:
        path: The current file.
        max_bytes: Size at which the file is rotated.
        keep: Most rotated files.

    Raises:
        DataError: The file cannot be written.
    """

    def __init__(self, path: Path, *, max_bytes: int = 64_000_000, keep: int = 20) -> None:
        self.path, self._max_bytes, self._keep = Path(path), max_bytes, keep
        self._lock = threading.Lock()
        self._conversations: set[str] = set()
        self._ids: set[str] = set()
        self._told_full = False
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
        return [file for file in map(self._rotated, range(self._keep + 1)) if file.is_file()]

    @property
    def conversations(self) -> int:
        """Number of conversations logged so far, by any process."""
        with self._lock:
            self._count(self.path)
            return len(self._conversations)

    @property
    def is_full(self) -> bool:
        """Whether nothing more is logged until somebody moves files away."""
        return self._told_full and self._free_number() is None

    def add(self, exchanges: Sequence[LoggedExchange]) -> None:
        """Append the lines of one exchange, all or none of them.

        Raises:
            LogFull: There are as many files as may be.
            OSError: The file can no longer be written.
        """
        now = _now()
        self._append([{"timestamp": now, **_row(exchange)} for exchange in exchanges])
        with self._lock:
            self._ids.update(exchange.id for exchange in exchanges)
            self._conversations.update(exchange.conversation_id for exchange in exchanges)

    def rate(self, exchange_id: str, rating: int) -> bool:
        """Append a rating (1, -1, or 0 to remove it); False if the log has no such exchange. Raises as `add`."""
        with self._lock:
            self._count(self.path)
            known = exchange_id in self._ids
        if known:
            self._append([{"timestamp": _now(), "type": "rating", "id": exchange_id, "rating": rating}])
        return known

    # --- the files

    def _append(self, rows: Sequence[dict[str, Any]]) -> None:
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode("utf-8", errors="replace")
        with self._lock, exclusive(self._lock_file, purpose="the chat log", keep=True):
            self._rotate(len(lines))
            handle = self._open(os.O_WRONLY)
            try:
                _write_all(handle, lines)
                os.fsync(handle)
            finally:
                os.close(handle)

    @property
    def _lock_file(self) -> Path:
        return self.path.with_name(f".{self.path.name}.lock")

    def _open(self, mode: int) -> int:
        """The file, private, for appending. OSError for a link: it might lead to a file of somebody else."""
        handle = os.open(self.path, mode | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), PRIVATE)
        try:
            if hasattr(os, "fchmod") and os.fstat(handle).st_mode & 0o077:
                os.fchmod(handle, PRIVATE)
        except OSError as problem:
            logger.warning("%s can be read by others: %s", self.path.name, problem.strerror)
        return handle

    def _free_number(self) -> int | None:
        """The first number without a file, up to which the files move on; None if there is none."""
        numbers = range(1, self._keep + 1)
        return next((n for n in numbers if not self._rotated(n).exists()), None)

    def _rotated(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}") if number else self.path

    def _rotate(self, coming: int) -> None:
        """Move a full file on, and the older ones; only into a free name, so that none is replaced."""
        if not self.path.is_file() or self.path.stat().st_size + coming <= self._max_bytes:
            return
        free = self._free_number()
        if free is None:
            if not self._told_full:
                self._told_full = True
                message = "The chat log is full (%d files of %s): nothing more is logged. Move files away to continue."
                logger.warning(message, self._keep + 1, self.path.name)
            raise LogFull(errno.ENOSPC, "the chat log is full")
        self._count(self.path)
        for number in range(free, 0, -1):
            self._rotated(number - 1).rename(self._rotated(number))
        self._told_full = False
        left = self._keep - sum(self._rotated(n).exists() for n in range(1, self._keep + 1))
        if left <= 2:
            logger.warning("%s was full; after %d more, logging stops: move old ones away", self.path.name, left + 1)
        else:
            logger.info("%s was full: rotated to %s.1", self.path.name, self.path.name)

    def _terminate_incomplete_line(self) -> None:
        """End the incomplete line that a crash may have left, so that the next line is separate."""
        with exclusive(self._lock_file, purpose="the chat log", keep=True):
            handle = self._open(os.O_RDWR)
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
                row = parse_json(line)
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


def _row(exchange: LoggedExchange) -> dict[str, Any]:
    names = ("user", "assistant", "id", "conversation_id", "turn", "system", "model", "settings", "rating")
    return {name: getattr(exchange, name) for name in names}


def _write_all(handle: int, data: bytes) -> None:
    while data:
        data = data[os.write(handle, data) :]


def _now() -> str:
    return datetime.now(UTC).astimezone().isoformat(timespec="milliseconds")
