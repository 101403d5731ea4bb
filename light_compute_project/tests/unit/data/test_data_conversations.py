"""Chat logs and foreign formats: what is read, what replaces what, what is cut, what is reported and skipped."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from litgpt_core.core.errors import DataError
from litgpt_core.data.chat_rows import ChatExample
from litgpt_core.data.conversations import ReadCounts, read_conversations
from litgpt_core.data.json_values import UnusableError, json_values
from litgpt_core.data.settings import ChatDataSettings

Write = Callable[..., Path]
Exchange = Callable[..., dict[str, Any]]


def read(path: Path) -> tuple[list[ChatExample], ReadCounts]:
    return read_conversations(ChatDataSettings(path=str(path)))


def said(conversation: ChatExample) -> list[str]:
    return [f"{message.role[0]}:{message.content}" for message in conversation.messages]


def test_the_log_s_exchanges_become_conversations_in_turn_order(write_rows: Write, exchange: Exchange) -> None:
    path = write_rows(
        exchange("one", "1", conversation="a", system="be brief"),
        exchange("hello", "hi", conversation="b"),
        exchange("three", "3", conversation="a", turn=2),
        exchange("two", "2", conversation="a", turn=1),
    )
    conversations, reading = read(path)
    assert [said(c) for c in conversations] == [
        ["s:be brief", "u:one", "a:1", "u:two", "a:2", "u:three", "a:3"],
        ["u:hello", "a:hi"],
    ]
    assert [c.identity for c in conversations] == ["a", "b"]
    assert reading.lines == 4 and not reading.broken and reading.summary() == ""


def test_a_later_answer_replaces_the_earlier_one_and_what_followed_it(write_rows: Write, exchange: Exchange) -> None:
    path = write_rows(
        exchange("q", "bad"),
        exchange("and then", "worse", turn=1),
        exchange("q", "good"),
        exchange("next", "better", turn=1),
    )
    conversations, reading = read(path)
    assert [said(c) for c in conversations] == [["u:q", "a:good", "u:next", "a:better"]]
    assert reading.replaced == 2


def test_an_answer_rated_down_is_no_target_and_is_removed_at_the_end(write_rows: Write, exchange: Exchange) -> None:
    def rate(row: dict[str, Any], rating: int) -> dict[str, Any]:
        return {"timestamp": "t", "type": "rating", "id": row["id"], "rating": rating}

    a0, a1, a2 = (exchange(f"q{i}", f"r{i}", conversation="a", turn=i) for i in range(3))
    b0, b1 = (exchange(f"Q{i}", f"R{i}", conversation="b", turn=i) for i in range(2))
    only = exchange("q", "r", conversation="only", rating=-1)
    taken_back = exchange("x", "y", conversation="taken back")
    path = write_rows(
        *(a0, a1, a2, b0, b1, only, taken_back),
        *(rate(a1, -1), rate(b1, -1), rate(taken_back, -1), rate(taken_back, 1), rate(a0, 1)),
    )
    conversations, reading = read(path)
    assert [(said(c), set(c.refused)) for c in conversations] == [
        (["u:q0", "a:r0", "u:q1", "a:r1", "u:q2", "a:r2"], {1}),
        (["u:Q0", "a:R0"], set()),
        (["u:x", "a:y"], set()),
    ]
    assert (reading.rated_down, reading.empty) == (3, 1)


def test_rotated_files_are_read_first_the_oldest_first(write_rows: Write, exchange: Exchange) -> None:
    write_rows(exchange("q", "oldest"), name="chat_history.jsonl.10")
    write_rows(exchange("q", "older"), name="chat_history.jsonl.2")
    write_rows(exchange("q", "no log"), name="chat_history.jsonl.bak")
    path = write_rows(exchange("q", "newest"))
    conversations, reading = read(path)
    assert [said(c) for c in conversations] == [["u:q", "a:newest"]]
    assert (reading.files, reading.replaced) == (3, 2)
    path.unlink()
    assert said(read(path)[0][0]) == ["u:q", "a:older"], "right after a rotation there is no current file"


def test_openai_and_sharegpt_rows(write_rows: Write) -> None:
    def openai(*pairs: tuple[str, Any]) -> dict[str, Any]:
        return {"messages": [{"role": role, "content": content} for role, content in pairs]}

    def sharegpt(*pairs: tuple[str, str]) -> dict[str, Any]:
        return {"conversations": [{"from": who, "value": text} for who, text in pairs]}

    parts = [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}]
    path = write_rows(
        openai(("developer", "s"), ("user", parts), ("assistant", "Hi")),
        sharegpt(("gpt", "Welcome"), ("human", "a"), ("gpt", "b"), ("human", "unanswered")),
        openai(("user", "x"), ("user", "y"), ("assistant", "z")),
    )
    conversations, reading = read(path)
    greeted = ["u:", "a:Welcome", "u:a", "a:b"]
    assert [said(c) for c in conversations] == [["s:s", "u:Hello", "a:Hi"], greeted, ["u:x\n\ny", "a:z"]]
    assert conversations[1].refused == {0}, "a greeting is context only"
    assert reading.unanswered == 1
    assert len({c.identity for c in conversations}) == 3


def test_a_folder_of_files_in_several_formats(tmp_path: Path, write_rows: Write, exchange: Exchange) -> None:
    write_rows(exchange("1", "one"), name="folder/b.jsonl")
    write_rows(
        {"messages": [{"role": "user", "content": "2"}, {"role": "assistant", "content": "two"}]},
        name="folder/a/x.jsonl",
    )
    write_rows("not for us", name="folder/notes.txt")
    conversations, reading = read(tmp_path / "folder")
    assert [said(c)[0] for c in conversations] == ["u:2", "u:1"] and reading.files == 2


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("{broken", "not JSON"),
        ("[1, 2]", "message 1 is not an object"),
        ("7", "a number, neither an object nor a list"),
        ('{"text": "x"}', "its keys are 'text': text without roles is trained on with data=text"),
        ('{"body": "x", "meta": 1}', "its keys are 'body', 'meta': no known format"),
        ('{"user": "x", "assistant": ""}', "'assistant' is empty"),
        ('{"user": "x", "assistant": "y", "turn": -1}', "turn=-1"),
        ('{"user": "\\ud800", "assistant": "y"}', "lone surrogate"),
        ('{"type": "rating", "id": "x", "rating": 7}', "rating -1, 0 or 1"),
        ('{"messages": [{"role": "judge", "content": "x"}]}', "role='judge'"),
        ('{"messages": [{"role": ["user"], "content": "x"}]}', "role=['user']"),
        ('{"messages": [{"role": "user", "content": 3}]}', "message 1 is not text"),
        ('{"messages": [{"role": "assistant", "content": "x"}]}', "no message of the user"),
        ('{"conversations": []}', "is not a list of messages"),
    ],
)
def test_a_broken_line_is_named_by_number_and_reason_and_skipped(
    write_rows: Write, exchange: Exchange, row: str, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_rows(exchange("q", "r"), "", row, exchange("q", "r", conversation="d", turn=1))
    with caplog.at_level(logging.WARNING):
        conversations, reading = read(path)
    assert len(conversations) == 1 and reading.duplicates == 1, "the rest of the file is read"
    assert (
        len(reading.broken) == 1 and reading.broken[0].startswith(f"{path}: line 3: ") and reason in reading.broken[0]
    )
    assert f"{path}: line 3" in caplog.text


def test_only_the_first_broken_lines_are_shown_but_all_are_counted(
    write_rows: Write, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_rows(*["{"] * 12)
    with caplog.at_level(logging.WARNING):
        conversations, reading = read(path)
    assert not conversations and len(reading.broken) == 12
    assert (
        f"{path}: line 5:" in caplog.text
        and f"{path}: line 6:" not in caplog.text
        and "7 more broken rows" in caplog.text
    )
    assert "12 broken row(s) skipped" in reading.summary()


def test_bytes_that_are_no_text(tmp_path: Path, exchange: Exchange) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(exchange("q", "r")).encode() + b"\n\xff\xfe\n")
    conversations, reading = read(path)
    assert len(conversations) == 1 and "not UTF-8" in reading.broken[0], "a byte-order mark does no harm"


def test_the_same_messages_count_once(write_rows: Write, exchange: Exchange) -> None:
    rows = [exchange("q", "r", conversation=name) for name in ("first", "second")]
    conversations, reading = read(write_rows(*rows, exchange("q", "R", conversation="third")))
    assert [c.identity for c in conversations] == ["first", "third"] and reading.duplicates == 1


def test_a_missing_path_says_what_is_there(tmp_path: Path, write_rows: Write) -> None:
    write_rows()
    with pytest.raises(DataError, match=r"data\.path=.*chat_history\.jsonl"):
        read(tmp_path / "chat_histroy.jsonl")


def test_a_row_of_very_many_keys_is_not_parsed_and_many_rows_in_one_line_are() -> None:
    many = json.dumps([{"messages": [{f"k{n}": 1 for n in range(120_000)}]}]).encode()
    ((place, value),) = json_values(many)
    assert place == "line 1" and isinstance(value, UnusableError) and "120,001 keys" in str(value)
    rows = [{"user": "u", "assistant": "a", "more": {"n": 1}} for _ in range(30_000)]
    assert [value for _, value in json_values(json.dumps(rows).encode())] == rows
    clock = {"text": "at 12:30:01 it said: " * 60_000}
    assert [value for _, value in json_values(json.dumps(clock).encode())] == [clock]
