"""Conversations in every format and every kind of JSON file; any value under any key is read, or its row is named."""

from __future__ import annotations

import gzip
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from litgpt_core.data.chat_encoding import EncodingProblems, encode_or_leave_out
from litgpt_core.data.chat_formats import FORMATS, NANOCHAT, Format, messages_of
from litgpt_core.data.chat_prepare import split_conversations
from litgpt_core.data.chat_rows import ChatExample, LoggedExchanges, from_messages
from litgpt_core.data.conversations import ReadCounts, read_conversations
from litgpt_core.data.json_values import UnusableError, json_values
from litgpt_core.data.settings import ChatDataSettings
from litgpt_core.prompts import style_named
from litgpt_core.tokenizers.registry import train as train_tokenizer
from litgpt_core.tokenizers.settings import ByteSettings

PAGE = Path(__file__).resolve().parents[3] / "docs" / "finetuning.md"
ALL = (*FORMATS, NANOCHAT)
Write = Callable[..., Path]


def read(path: Path) -> tuple[list[ChatExample], ReadCounts]:
    return read_conversations(ChatDataSettings(path=str(path)))


def said(conversation: ChatExample) -> list[str]:
    return [f"{message.role[0]}:{message.content}" for message in conversation.messages]


def turns(*texts: str) -> list[dict[str, Any]]:
    return [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]


# --- formats


@pytest.mark.parametrize("known", ALL, ids=lambda each: each.name)
def test_every_example_is_read_as_its_format_and_stands_on_the_page(known: Format, tmp_path: Path) -> None:
    assert f"| {known.name} | `{known.example}` |" in PAGE.read_text(encoding="utf-8")
    (tmp_path / "x.jsonl").write_text(known.example, encoding="utf-8")
    (conversation,), counts = read(tmp_path / "x.jsonl")
    assert counts.formats == {known.name: 1} and not counts.broken
    asked = {"Alpaca": "Greet in\n\nFrench", "Dolly": "Who asks?\n\nAnn asks.", "question and answer": "1 + 1?"}
    answered = {"Alpaca": "Bonjour", "Dolly": "Ann", "question and answer": "2"}
    assert said(conversation) == [f"u:{asked.get(known.name, 'Hi')}", f"a:{answered.get(known.name, 'Hello')}"]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"conversations": turns("a", "b")}, ["u:a", "a:b"]),
        ({"messages": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}, ["u:a", "a:b"]),
        ([{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}], ["u:a", "a:b"]),
        ({"Messages": [{"Role": "User", "Content": "a"}, {"ROLE": " ASSISTANT ", "content": "b"}]}, ["u:a", "a:b"]),
        ({"instruction": "a", "input": "", "output": "b"}, ["u:a", "a:b"]),
        ({"instruction": "a", "input": None, "output": "b", "system": "s"}, ["s:s", "u:a", "a:b"]),
        ({"Instruction": "a", "Output": "b", "history": [["x", "y"]]}, ["u:x", "a:y", "u:a", "a:b"]),
        ({"instruction": "", "input": "a", "output": "b"}, ["u:a", "a:b"]),
        ({"prompt": turns("a", "b", "c"), "completion": turns("", "d")[1:]}, ["u:a", "a:b", "u:c", "a:d"]),
        ({"system": "s", "messages": turns("a", "b")}, ["s:s", "u:a", "a:b"]),
        ({"system_prompt": "s", "question": "a", "response": 1, "answer": "b"}, ["s:s", "u:a", "a:b"]),
        ({"messages": [{"role": "developer", "content": "s"}, *turns("a", "b")]}, ["s:s", "u:a", "a:b"]),
        ({"messages": [*turns("a", "b"), {"role": "system", "content": "s"}]}, ["s:s", "u:a", "a:b"]),
        (
            {"messages": [{"role": "user", "content": ["a", {"type": "text", "text": "A"}]}, turns("", "b")[1]]},
            ["u:aA", "a:b"],
        ),
        ({"question": "a", "chosen": "b", "rejected": "c", "system": "s"}, ["s:s", "u:a", "a:b"]),
        ({"prompt": "a", "chosen": turns("a", "b"), "rejected": turns("a", "c")}, ["u:a", "a:b"]),
        ({"prompt": turns("a"), "chosen": turns("", "b")[1:], "rejected": []}, ["u:a", "a:b"]),
        ({"chosen": turns("a", "b"), "rejected": turns("a", "c")}, ["u:a", "a:b"]),
        (
            {"chosen": "\n\nHuman: a\n\nAssistant: b\n\nb2\n\nHuman: c\n\nAssistant: d", "rejected": "x"},
            ["u:a", "a:b\n\nb2", "u:c", "a:d"],
        ),
    ],
)
def test_variants_of_the_formats(row: Any, expected: list[str], tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text(json.dumps(row), encoding="utf-8")
    (conversation,), counts = read(tmp_path / "x.jsonl")
    assert said(conversation) == expected and not counts.broken


def test_tool_calls_and_results_stay_in_the_conversation() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "clock", "arguments": "{}"}}
    listed = [
        {"role": "user", "content": "Time?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "12:30"},
        {"role": "assistant", "content": "Half past twelve."},
    ]
    conversation = from_messages(messages_of({"messages": listed})[1])
    assert [message.role for message in conversation.messages] == ["user", "assistant", "user", "assistant"]
    assert '"name": "clock"' in conversation.messages[1].content and "12:30" in conversation.messages[2].content


def test_weights_decide_what_is_learnt() -> None:
    listed = turns("a", "A", "b", "B", "c", "C")
    for place, (key, value) in {1: ("weight", 0), 3: ("weight", 1), 5: ("train", False)}.items():
        listed[place][key] = value
    assert from_messages(messages_of(listed)[1]).refused == {0, 2}
    joined = [*turns("a", "A"), {"role": "assistant", "content": "more", "weight": 0.0}, *turns("b", "B")]
    assert from_messages(messages_of(joined)[1]).refused == {0}, "an answer is learnt as a whole or not at all"
    for wrong in (0.5, 2, "0", [0], {}):
        with pytest.raises(UnusableError, match="message 2 has weight="):
            messages_of([listed[0], {**listed[1], "weight": wrong}])


def test_an_answer_labelled_false_is_not_learnt() -> None:
    row = {"prompt": "a", "completion": "b", "label": False}
    assert from_messages(messages_of(row)[1]).refused == {0}
    assert not from_messages(messages_of(row | {"label": True})[1]).refused


@pytest.mark.parametrize("chosen", ["no transcript", "x\n\nHuman: a\n\nAssistant: b", 3, [], None])
def test_a_preference_without_a_conversation_is_named(chosen: object) -> None:
    with pytest.raises(UnusableError, match="chosen"):
        messages_of({"chosen": chosen, "rejected": "r"})


# --- CSV


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_csv_with_quotes_line_breaks_and_any_mark(mark: str, encoding: str, tmp_path: Path) -> None:
    lines = [mark.join(("Prompt", "note", "completion")), mark.join(('"a, b;\tc"', "", '"first\nsaid ""x"" é"')), ""]
    lines.insert(2, mark.join(("c", "", "d")))
    (tmp_path / "x.csv").write_bytes("\r\n".join(lines).encode(encoding))
    conversations, counts = read(tmp_path / "x.csv")
    assert [said(each) for each in conversations] == [["u:a, b;\tc", 'a:first\nsaid "x" é'], ["u:c", "a:d"]]
    assert counts.formats == {"prompt and completion": 2} and not counts.broken


def test_csv_cells_that_hold_messages_in_json(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "x.tsv.gz", "wt", encoding="utf-8") as file:
        cell = json.dumps(turns("a", "b")).replace('"', '""')
        file.write(f'messages\tsource\n"{cell}"\tme\n')
    (conversation,), _ = read(tmp_path / "x.tsv.gz")
    assert said(conversation) == ["u:a", "a:b"]


def test_damaged_csv_is_named_by_its_line_and_the_rest_is_read(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text('prompt,completion\na,b\nc\n\nd,e\nf,"open\nto the end', encoding="utf-8")
    conversations, counts = read(tmp_path / "x.csv")
    assert [said(each) for each in conversations] == [["u:a", "a:b"], ["u:d", "a:e"]]
    assert ["line 3: it has 1 cells, and the header 2" in counts.broken[0], "line 6" in counts.broken[1]] == [
        True,
        True,
    ]
    (tmp_path / "y.csv").write_bytes(b"prompt,completion\na,caf\xe9\n")
    _, counts = read(tmp_path / "y.csv")
    assert "it is not utf-8 (byte offset" in counts.broken[0]


def test_learnt_targets_leave_out_an_answer_of_weight_0() -> None:
    tokenizer, style = train_tokenizer(ByteSettings(), ()), style_named("human_assistant")
    listed = turns("a", "first", "b", "second")
    listed[1]["weight"] = 0
    encoded = encode_or_leave_out(from_messages(messages_of(listed)[1]), style, tokenizer, 200, EncodingProblems())
    assert encoded is not None
    learnt = [i for i, flag in zip(encoded.ids, encoded.loss_mask, strict=True) if flag]
    assert tokenizer.decode(learnt) == "second" and "first" in tokenizer.decode(encoded.ids)


# --- kinds of files

ROWS = [{"messages": turns(f"question {i} é 😀", f"answer {i}")} for i in range(5)]
EXPECTED = [[f"u:question {i} é 😀", f"a:answer {i}"] for i in range(5)]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS)
PLAIN = "\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS)
FILES = {
    "lines": LINES,
    "lines with CRLF and blanks": LINES.replace("\n", "\r\n\r\n"),
    "lines without escapes": PLAIN,
    "one array": json.dumps(ROWS),
    "an array over many lines": json.dumps(ROWS, indent=2),
    "an array with a row per line": "[\n" + LINES.strip().replace("\n", ",\n") + "\n]",
    "an array, two rows on the first line": "[" + LINES.strip().replace("\n", ",", 1).replace("\n", ",\n") + "]",
    "objects over many lines": "\n".join(json.dumps(row, indent=4) for row in ROWS),
    "lists of messages": "\n".join(json.dumps(row["messages"]) for row in ROWS),
    "lists of messages over many lines": "\n".join(json.dumps(row["messages"], indent=1) for row in ROWS),
    "an array of lists": json.dumps([row["messages"] for row in ROWS]),
    "an array of lists over many lines": json.dumps([row["messages"] for row in ROWS], indent=2),
    "an object that holds the rows": json.dumps({"version": 1, "data": ROWS}),
    "an object over many lines that holds the rows": json.dumps({"data": ROWS}, indent=2),
    "a line that holds an array": json.dumps(ROWS[:3]) + "\n" + json.dumps(ROWS[3:]),
}
ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"]


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_kind_of_json_file(kind: str, encoding: str, tmp_path: Path) -> None:
    raw = FILES[kind].encode(encoding)
    (tmp_path / "x.json").write_bytes(raw)
    (tmp_path / "x.jsonl.gz").write_bytes(gzip.compress(raw))
    for name in ("x.json", "x.jsonl.gz"):
        conversations, counts = read(tmp_path / name)
        assert [said(c) for c in conversations] == EXPECTED and not counts.broken
    assert len(read(tmp_path)[0]) == 5, "the folder's pattern finds the compressed file"


def test_rows_before_a_damaged_place_are_read_and_the_place_is_named() -> None:
    text = json.dumps(ROWS, indent=2)
    cut = text[: text.index("question 3") + 4]
    values = list(json_values(cut.encode()))
    assert [value for _, value in values[:-1]] == ROWS[:3]
    place, problem = values[-1]
    assert isinstance(problem, UnusableError) and "nothing after it is read" in str(problem)
    line = cut.count("\n") + 1
    assert place.startswith(f"line {line}, column ")
    (*_, (place, problem)) = json_values(text.rstrip("]\n ").encode())
    assert isinstance(problem, UnusableError) and "cut off" in str(problem)


def test_a_damaged_line_of_jsonl_does_not_end_reading() -> None:
    for damaged in ("{broken", "[1, 2", '{"a": [', "not for us", '"text', "\x00"):
        lines = [damaged, *LINES.splitlines()]
        values = list(json_values("\n".join(lines).encode()))
        assert [isinstance(value, UnusableError) for _, value in values] == [True, *[False] * 5]
        assert values[0][0] == "line 1"


def test_the_formats_found_and_unknown_keys_are_said(write_rows: Write, caplog: pytest.LogCaptureFixture) -> None:
    path = write_rows(*(f.example for f in FORMATS), {"body": "x", "meta": 1}, {"text": "x"})
    with caplog.at_level(logging.INFO):
        read(path)
    assert "1 as Alpaca" in caplog.text and "its keys are 'body', 'meta': no known format" in caplog.text
    assert "data=text" in caplog.text


# --- any value under any key

HUGE = "x" * 100_000
ODD = st.sampled_from([None, True, 0, -1, 2.5, 10**400, "", "\ud83d", HUGE, [], {}, [1], {"a": []}, ["user"], "user"])
ANY = st.recursive(ODD | st.text(max_size=4) | st.integers(), lambda inner: st.lists(inner, max_size=3), max_leaves=4)
BASES: list[Any] = [
    *(json.loads(each.example) for each in ALL),
    {"user": "a", "assistant": "b", "conversation_id": "c", "turn": 0, "id": "i", "system": "s", "rating": 1},
    {"type": "rating", "id": "i", "rating": 1, "timestamp": "t"},
    {"instruction": "a", "input": "b", "output": "c", "history": [["d", "e"]], "system": "s"},
    {
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "x"}], "weight": 1, "name": "n"},
            *turns("a", "b"),
        ]
    },
]


def places(value: Any) -> list[tuple[Any, ...]]:
    """The path of every value inside a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [()] + [(key, *below) for key, each in items for below in places(each)]


def replaced(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = replaced(value[path[0]], path[1:], new)
    return copy


def use(rows: list[Any]) -> None:
    """Everything that happens to rows up to the token ids; only an UnusableError of a row may stop it."""
    log, conversations = LoggedExchanges(), []
    for row in rows:
        try:
            if isinstance(row, dict) and ("user" in row or row.get("type") == "rating"):
                log.add(row)
            else:
                conversations.append(from_messages(messages_of(row)[1]))
        except UnusableError as problem:
            length = len(str(problem))
            assert length < 400, str(problem)[:200]
    conversations += log.conversations().values()
    for conversation in conversations:
        conversation.identity.encode()
        encode_or_leave_out(conversation, STYLE, TOKENIZER, 50, EncodingProblems())
    if len(conversations) > 1:
        split_conversations(conversations, ChatDataSettings(path="x"))


STYLE, TOKENIZER = style_named("human_assistant"), train_tokenizer(ByteSettings(), ())


@pytest.mark.parametrize("base", BASES, ids=lambda base: json.dumps(base)[:40])
def test_any_value_under_any_key_is_read_or_named(base: Any) -> None:
    odd = [None, True, 0, 2.5, 10**400, "", "\ud83d", HUGE, [], {}, ["user"], {"a": []}, [[]], [None], [{}]]
    use([replaced(base, path, value) for path in places(base) for value in odd])


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(BASES), st.data())
def test_several_odd_values_at_once(base: Any, data: st.DataObject) -> None:
    row = base
    for _ in range(2):
        row = replaced(row, data.draw(st.sampled_from(places(row))), data.draw(ANY))
    use([row, base])


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=60) | st.text(alphabet='[]{}",:\n ab01\\u', max_size=40).map(str.encode))
def test_any_bytes_end_in_values_or_named_places(raw: bytes) -> None:
    for place, value in json_values(raw):
        assert place and (isinstance(value, UnusableError) or json.dumps(value))


def test_odd_files_are_read_through_the_whole_reader(tmp_path: Path) -> None:
    rows = [replaced(base, path, value) for base in BASES for path in places(base) for value in (None, [], "\ud83d", 7)]
    (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    conversations, counts = read(tmp_path / "x.jsonl")
    assert conversations and counts.broken and counts.lines == len(rows)
    for line in counts.broken:
        line.encode()


def test_a_file_of_conversations_is_inspected_as_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from litgpt_core.commands.inspect_data import main

    rows = [{"instruction": f"Question {n}?", "input": "", "output": f"Answer {n}."} for n in range(20)]
    file = tmp_path / "alpaca.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"instruction": 3}\n')
    assert main([str(file)]) == 0
    said = capsys.readouterr().out
    assert "20, at most 2 messages each" in said and "20 rows as" in said
    assert "1 broken row(s) skipped" in said and "+experiment=finetune_chat" in said
    (tmp_path / "text.jsonl").write_text('{"text": "Plain text of a document."}\n' * 3)
    assert main([str(tmp_path / "text.jsonl")]) == 0
    assert "documents" in capsys.readouterr().out
