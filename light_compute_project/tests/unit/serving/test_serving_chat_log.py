"""The chat log keeps every exchange complete, with several writers and after crashes."""

import json
import multiprocessing
import threading
from datetime import datetime
from pathlib import Path

import pytest

from litgpt_core.core.errors import DataError
from litgpt_core.serving.chat_log import ExchangeLog, LogFull, LoggedExchange


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def add(log: ExchangeLog, i: int, **words: object) -> str:
    usual = {"conversation_id": f"own {i}", "turn": 0}
    text = {"user": f"question {i}", "assistant": f"answer\n{i} \u2603"}
    exchange = LoggedExchange(**text, model="m", settings={"top_k": 5}, **(usual | words))
    log.add([exchange])
    return exchange.id


def test_a_row_holds_what_training_needs(tmp_path):
    log = ExchangeLog(tmp_path / "deep" / "chats.jsonl")
    number = add(log, 1, conversation_id="c1", turn=2, system="be kind")
    row = rows(log.path)[0]
    assert datetime.fromisoformat(row["timestamp"]).tzinfo is not None
    assert row["id"] == number and row["rating"] is None
    assert [row[name] for name in ("user", "assistant", "conversation_id", "turn", "system", "model")] == [
        "question 1",
        "answer\n1 \u2603",
        "c1",
        2,
        "be kind",
        "m",
    ]
    assert row["settings"] == {"top_k": 5}
    assert log.path.stat().st_mode & 0o077 == 0, "conversations are readable only by the owner"


def test_conversations_are_counted_once_across_starts_and_writers(tmp_path):
    log = ExchangeLog(tmp_path / "chats.jsonl")
    assert log.conversations == 0
    add(log, 1, conversation_id="a")
    add(log, 2, conversation_id="a", turn=1)
    add(log, 3)
    other = ExchangeLog(tmp_path / "chats.jsonl")
    assert other.conversations == log.conversations == 2
    add(other, 4)
    assert log.conversations == 3


def test_ratings_are_separate_rows_for_existing_exchanges(tmp_path):
    log = ExchangeLog(tmp_path / "chats.jsonl")
    number = add(log, 1)
    assert log.rate(number, -1) and log.rate(number, 1)
    assert not log.rate("nobody", 1)
    assert [row["rating"] for row in rows(log.path) if row.get("type") == "rating"] == [-1, 1]
    assert ExchangeLog(tmp_path / "chats.jsonl").rate(number, 0)
    assert log.conversations == 1


def test_a_file_removed_or_rotated_by_others_is_counted_correctly(tmp_path):
    log = ExchangeLog(tmp_path / "chats.jsonl")
    first = [add(log, i) for i in range(5)]
    log.path.unlink()
    number = add(log, 9)
    assert log.rate(number, 1)
    other = ExchangeLog(tmp_path / "chats.jsonl", max_bytes=300)
    theirs = [add(other, i) for i in range(20, 23)]
    assert len(other.files()) > 1
    mine = add(log, 10)
    assert log.rate(mine, 1)
    assert log.rate(theirs[-1], 1)
    assert log.conversations == len(first) + 1 + len(theirs) + 1


def test_an_incomplete_line_after_a_crash_stays_separate(tmp_path):
    path = tmp_path / "chats.jsonl"
    log = ExchangeLog(path)
    add(log, 1)
    whole = path.read_bytes()
    path.write_bytes(whole + whole[: len(whole) // 2])
    log = ExchangeLog(path)
    add(log, 2)
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(lines) == 3
    assert [json.loads(lines[i])["user"] for i in (0, 2)] == ["question 1", "question 2"]
    assert log.conversations == 2


def _write_many(path: str, start: int) -> None:
    log = ExchangeLog(Path(path), max_bytes=4000, keep=1000)
    threads = [threading.Thread(target=lambda i=i: add(log, start + i)) for i in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_many_writers_and_rotation_lose_nothing(tmp_path):
    path = tmp_path / "chats.jsonl"
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_write_many, args=(str(path), 100 * i)) for i in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    log = ExchangeLog(path, max_bytes=4000, keep=1000)
    found = [row for file in log.files() for row in rows(file)]
    assert sorted(row["user"] for row in found) == sorted(
        f"question {100 * i + k}" for i in range(3) for k in range(20)
    )
    assert len(log.files()) > 3
    assert all(file.stat().st_size <= 4000 for file in log.files())
    assert log.conversations == 60


def test_a_path_that_cannot_be_written_is_reported_at_once(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        ExchangeLog(tmp_path / "file" / "chats.jsonl")


def test_nothing_is_deleted_when_all_files_are_full(tmp_path, caplog):
    log = ExchangeLog(tmp_path / "chats.jsonl", max_bytes=600, keep=2)
    written = 0
    with pytest.raises(LogFull):
        for i in range(20):
            add(log, i)
            written += 1
    with pytest.raises(LogFull):
        log.rate(rows(log.path)[0]["id"], 1)
    assert log.is_full and len(log.files()) == 3
    assert [row["user"] for file in reversed(log.files()) for row in rows(file)] == [
        f"question {i}" for i in range(written)
    ]
    assert caplog.text.count("nothing more is logged") == 1 and "logging stops: move old ones away" in caplog.text
    (tmp_path / "chats.jsonl.1").rename(tmp_path / "elsewhere")
    assert not log.is_full
    add(log, 99)
    assert rows(log.path)[-1]["user"] == "question 99"


def test_an_exchange_is_one_write(tmp_path, monkeypatch):
    log = ExchangeLog(tmp_path / "chats.jsonl")
    synced = []
    monkeypatch.setattr("litgpt_core.serving.chat_log.os.fsync", synced.append)
    words = {"assistant": "a", "model": "m", "settings": {}, "conversation_id": "c"}
    log.add([LoggedExchange(user=str(i), turn=i, **words) for i in range(50)])
    assert len(synced) == 1 and len(rows(log.path)) == 50 and log.conversations == 1


def test_the_log_is_private_and_follows_no_link(tmp_path):
    path = tmp_path / "chats.jsonl"
    path.touch(mode=0o666)
    path.chmod(0o666)
    log = ExchangeLog(path)
    add(log, 1)
    assert path.stat().st_mode & 0o077 == 0 and (tmp_path / ".chats.jsonl.lock").stat().st_mode & 0o077 == 0
    target = tmp_path / "of somebody else"
    target.write_text("theirs\n")
    (tmp_path / "link.jsonl").symlink_to(target)
    with pytest.raises(DataError, match="cannot be written"):
        ExchangeLog(tmp_path / "link.jsonl")
    assert target.read_text() == "theirs\n"
