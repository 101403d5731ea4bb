"""Conversations to batches: the loss mask, truncation, the split, how rows are packed and ordered."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from litgpt_core.core.errors import DataError
from litgpt_core.data.chat_data import ChatData
from litgpt_core.data.chat_dataset import ChatRows, ChatTrainBatches, ChatValBatches
from litgpt_core.data.chat_encoding import EncodingProblems, encode_chat, encode_or_leave_out
from litgpt_core.data.chat_prepare import split_conversations
from litgpt_core.data.chat_rows import ChatExample
from litgpt_core.data.conversations import read_conversations
from litgpt_core.data.packing import pack
from litgpt_core.data.prepare import open_prepared
from litgpt_core.data.prepare import prepare as prepare_any
from litgpt_core.data.settings import ChatDataSettings
from litgpt_core.prompts import Message, load_style, style_named
from litgpt_core.tokenizers.registry import train as train_tokenizer
from litgpt_core.tokenizers.settings import ByteSettings, CharSettings

STYLE = style_named("human_assistant")
TOKENIZER = train_tokenizer(ByteSettings(), ())
Write = Callable[..., Path]
Exchange = Callable[..., dict[str, Any]]


def chat(*texts: str, refused: frozenset[int] = frozenset(), system: str = "") -> ChatExample:
    """Texts by turns, the user's first."""
    messages = [Message(role="system", content=system)] if system else []
    messages += [Message(role="assistant" if i % 2 else "user", content=text) for i, text in enumerate(texts)]
    return ChatExample(identity=texts[0], messages=tuple(messages), refused=refused)


def targets_of(ids: list[int], flags: list[bool]) -> str:
    return TOKENIZER.decode([i for i, flag in zip(ids, flags, strict=True) if flag])


def encode(conversation: ChatExample, *, block_size: int = 500) -> Any:
    return encode_chat(conversation, style=STYLE, tokenizer=TOKENIZER, block_size=block_size)


def test_exactly_the_answers_and_their_ends_are_targets_of() -> None:
    encoded = encode(chat("Hi", "Hello", "Bye", "See you", system="be kind"))
    assert TOKENIZER.decode(encoded.ids) == "be kind\nHuman: Hi\nAssistant: Hello\nHuman: Bye\nAssistant: See you"
    assert targets_of(encoded.ids, encoded.loss_mask) == "HelloSee you"
    ends = [i for i, token in enumerate(encoded.ids) if token == TOKENIZER.eos_id]
    assert len(ends) == 2 and all(encoded.loss_mask[i] for i in ends), "the end of an answer is a target too"
    assert encoded.answer_bytes == len("HelloSee you") and encoded.targets == len("HelloSee you") + 2


def test_a_refused_answer_is_context_only() -> None:
    encoded = encode(chat("a", "bad", "b", "good", refused=frozenset({0})))
    assert "bad" in TOKENIZER.decode(encoded.ids)
    assert targets_of(encoded.ids, encoded.loss_mask) == "good" and encoded.answer_bytes == 4 and encoded.targets == 5


def test_a_long_conversation_loses_its_oldest_exchanges_and_keeps_its_system_text() -> None:
    long = chat("one", "ONE", "two", "TWO", "three", "THREE", system="sys", refused=frozenset({1}))
    whole = encode(long)
    for block_size in (len(whole.ids) - 2, 60):
        encoded = encode(long, block_size=block_size)
        text = TOKENIZER.decode(encoded.ids)
        assert len(encoded.ids) <= block_size + 1 and text.startswith("sys\nHuman: ")
        assert encoded.exchanges_cut in (1, 2) and encoded.tokens_cut == 0
        assert targets_of(encoded.ids, encoded.loss_mask) == "THREE", "the refused answer keeps its place in the count"
    assert encode(long, block_size=len(whole.ids) - 1).exchanges_cut == 0


def test_an_exchange_longer_than_a_row_loses_its_beginning() -> None:
    encoded = encode(chat("q" * 40, "answer"), block_size=10)
    assert len(encoded.ids) == 11 and encoded.tokens_cut > 0 and encoded.answer_bytes == 6
    assert TOKENIZER.decode(encoded.ids).endswith(" answer")
    assert encode(chat("q", "r" * 40), block_size=10).answer_bytes == 10


@pytest.mark.parametrize("seed", range(5))
def test_packing_holds_every_index_once_and_overfills_no_row(seed: int) -> None:
    lengths = torch.randint(1, 65, (200,), generator=torch.Generator().manual_seed(seed)).tolist()
    rows = pack(lengths, capacity=64)
    assert sorted(i for row in rows for i in row) == list(range(200))
    assert all(sum(lengths[i] for i in row) <= 64 for row in rows)
    least = max(sum(lengths) / 64, sum(length > 32 for length in lengths))
    assert len(rows) <= 1.05 * least + 1, "best fit wastes little"
    assert pack([], capacity=8) == [] and pack([8, 8], capacity=8) == [[0], [1]]


# --- the split


def many(count: int, *, first: int = 0) -> list[ChatExample]:
    return [chat(f"question {i}", f"answer {i}") for i in range(first, first + count)]


def test_nobody_changes_sides_when_conversations_are_added() -> None:
    data = ChatDataSettings(path="x")
    before = {c.identity for c in split_conversations(many(200), data)[1]}
    train, val = split_conversations([*many(100, first=500), *many(200)][::-1], data)
    after = {c.identity for c in val}
    assert before == {name for name in after if name in {c.identity for c in many(200)}}
    assert len(train) + len(val) == 300 and 15 <= len(val) <= 45
    other = {c.identity for c in split_conversations(many(200), ChatDataSettings(path="x", split_seed=5))[1]}
    assert other != before


@pytest.mark.parametrize(("fraction", "seed"), [(1e-9, 1), (0.5, 3)])
def test_there_is_at_least_one_conversation_on_either_side(fraction: float, seed: int) -> None:
    for count in (2, 3, 10):
        train, val = split_conversations(
            many(count), ChatDataSettings(path="x", val_fraction=fraction, split_seed=seed)
        )
        assert train and val and len(train) + len(val) == count


# --- prepared


@pytest.fixture
def settings(tmp_path: Path, write_rows: Write, exchange: Exchange) -> ChatDataSettings:
    rows = [exchange(f"question {i}", "x" * (i % 7 + 1) + f" {i}", conversation=str(i)) for i in range(40)]
    path = write_rows(*rows, "{broken")
    return ChatDataSettings(path=str(path), cache_dir=str(tmp_path / "cache"), val_fraction=0.2)


def prepare(settings: ChatDataSettings, *, block_size: int = 100, fingerprint: str | None = None) -> ChatData:
    prepared = prepare_any(settings, ByteSettings(), block_size=block_size, fingerprint=fingerprint)
    assert isinstance(prepared, ChatData), "the kind in the settings decides the type"
    return prepared


def test_the_folder_says_what_is_in_it_and_is_found_again(settings: ChatDataSettings) -> None:
    prepared = prepare(settings)
    stamp = (prepared.directory / "meta.json").stat().st_mtime_ns
    assert prepare(settings).directory == prepared.directory
    assert (prepared.directory / "meta.json").stat().st_mtime_ns == stamp
    assert prepare(settings, block_size=99).directory != prepared.directory
    meta = prepared.meta
    assert meta["reading"]["broken"] == 1 and meta["style"] == "human_assistant"
    assert sum(side["documents"] for side in meta["splits"].values()) == 40
    assert prepared.references == {} and prepared.vocab_size == TOKENIZER.vocab_size
    assert prepared.val_tokens_per_byte == prepared.val_targets / prepared.val_bytes
    assert prepared.val_targets == prepared.val_bytes + meta["splits"]["val"]["documents"], "a byte each, and the ends"
    assert load_style(prepared.tokenizer_dir) == STYLE, "checkpoints copy it from there"
    assert open_prepared(prepared.directory) == prepared, "the kind in meta.json decides the type"
    first = prepared.held_out[0]
    assert [m["role"] for m in first] == ["user", "assistant"] and first[0]["content"].startswith("question ")


def test_another_rating_makes_another_folder_and_an_incomplete_one_is_made_again(
    settings: ChatDataSettings, exchange: Exchange
) -> None:
    prepared = prepare(settings)
    (prepared.directory / "train.learn.bin").write_bytes(b"")
    again = prepare(settings)
    assert again.directory == prepared.directory and len(ChatTrainBatches(again, **BATCHES).rows) > 0
    row = exchange("question 3", "x" * 4 + " 3", conversation="3")
    with Path(settings.path).open("a") as file:
        file.write('{"type": "rating", "id": "' + row["id"] + '", "rating": -1}\n')
    grown = prepare(settings)
    assert grown.fingerprint != prepared.fingerprint
    assert prepare(settings, fingerprint=prepared.fingerprint) == again, "a resumed run keeps its conversations"
    assert prepare(settings, fingerprint="0" * 64) == grown, "without that folder the log is read as it is now"


def test_fewer_than_ten_are_refused_with_the_count_and_the_reasons(
    tmp_path: Path, write_rows: Write, exchange: Exchange
) -> None:
    rows = [exchange(f"q{i}", "r", conversation=str(i)) for i in range(9)]
    path = write_rows(*rows, rows[0], "{", exchange("down", "r", conversation="down", rating=-1))
    with pytest.raises(DataError) as caught:
        prepare(ChatDataSettings(path=str(path), cache_dir=str(tmp_path)))
    message = str(caught.value)
    assert "9 usable conversations" in message and "at least 10" in message
    assert "1 broken row(s)" in message and "1 conversation(s) without an answer" in message
    assert not list(tmp_path.glob("chat-*"))


def test_cut_conversations_are_counted_in_the_log(settings: ChatDataSettings, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        prepared = prepare(settings, block_size=24)
    assert "longer than model.block_size=24" in caplog.text
    assert prepared.meta["splits"]["train"]["tokens_cut"] > 0


def test_what_the_vocabulary_lacks_is_left_out(
    write_rows: Write, exchange: Exchange, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [exchange("q", f"a{i}", conversation=str(i)) for i in range(12)]
    path = write_rows(*rows, exchange("q", "ä", conversation="umlaut"))
    conversations, _ = read_conversations(ChatDataSettings(path=str(path)))
    ascii_only = train_tokenizer(CharSettings(), ["".join(map(chr, range(10, 127)))])
    with caplog.at_level(logging.WARNING):
        problems = EncodingProblems()
        usable = [c for c in conversations if encode_or_leave_out(c, STYLE, ascii_only, 50, problems) is not None]
        problems.report("chat")
    assert len(conversations) == 13 and len(usable) == 12 and "conversation umlaut left out" in caplog.text


# --- batches

BATCHES: dict[str, Any] = {"seed": 1, "micro_batch_size": 2, "global_batch_size": 4}


def test_a_row_holds_whole_conversations_side_by_side(settings: ChatDataSettings) -> None:
    prepared = prepare(settings)
    rows, seen = ChatRows(prepared, "train"), 0
    for number in range(len(rows)):
        inputs, targets, segments = (part[0] for part in rows.batch([number], size=1))
        assert int((targets != -100).sum()) == rows.targets[number] > 0
        for text in range(1, int(segments.max()) + 1):
            here = segments == text
            assert bool(here[int(here.nonzero()[0]) : int(here.nonzero()[-1]) + 1].all()), "one unbroken run"
            ids = [*inputs[here].tolist(), int(targets[here][-1])]
            assert TOKENIZER.decode(ids).startswith("Human: question") and ids[-1] == TOKENIZER.eos_id
            seen += 1
        assert bool((targets[segments == 0] == -100).all())
    assert seen == prepared.meta["splits"]["train"]["documents"]
    assert (
        len(rows) == prepared.meta["splits"]["train"]["rows"]
        and int(rows.targets.sum()) == prepared.meta["splits"]["train"]["targets"]
    )


def test_each_epoch_visits_every_row_once_in_an_order_of_its_own(settings: ChatDataSettings) -> None:
    data = ChatTrainBatches(prepare(settings), **BATCHES)
    n = data.samples_per_epoch
    orders = [data.numbers(epoch * n, n).tolist() for epoch in (0, 1, 10**9)]
    assert all(sorted(order) == list(range(n)) for order in orders)
    assert len({tuple(order) for order in orders}) == 3


def test_ranks_and_micro_batches_share_one_order_and_one_count(settings: ChatDataSettings) -> None:
    prepared = prepare(settings)
    whole = ChatTrainBatches(prepared, seed=1, micro_batch_size=4, global_batch_size=4)
    for world_size, micro in ((1, 1), (1, 2), (2, 1), (2, 2), (4, 1)):
        ranks = [
            ChatTrainBatches(
                prepared, seed=1, micro_batch_size=micro, global_batch_size=4, rank=r, world_size=world_size
            )
            for r in range(world_size)
        ]
        for step in (0, 3, 10**6):
            per_step = 4 // (micro * world_size)
            parts = [ranks[r][step * per_step + k] for k in range(per_step) for r in range(world_size)]
            for place in range(3):
                assert torch.equal(torch.cat([part[place] for part in parts]), whole[step][place])
            assert {float(part[3]) for part in parts} == {float((whole[step][1] != -100).sum())}


def test_validation_shows_every_target_once_whatever_the_shares(settings: ChatDataSettings) -> None:
    prepared = prepare(settings)
    for world_size, size in ((1, 1), (1, 100), (2, 2), (3, 1)):
        shares = [ChatValBatches(prepared, batch_size=size, rank=r, world_size=world_size) for r in range(world_size)]
        assert len({len(share) for share in shares}) == 1
        batches = [share[i] for share in shares for i in range(len(share))]
        assert sum(int((batch[1] != -100).sum()) for batch in batches) == prepared.val_targets
        assert len({batch[0].shape for batch in batches}) == 1
    few = ChatValBatches(prepared, batch_size=4, max_tokens=100)
    assert few.target_tokens == sum(int((few[i][1] != -100).sum()) for i in range(len(few))) < prepared.val_targets
    with pytest.raises(IndexError):
        few[len(few)]


def test_a_dataset_survives_the_way_to_a_worker(settings: ChatDataSettings) -> None:
    data = ChatTrainBatches(prepare(settings), **BATCHES)
    before = data[5]
    copied = pickle.loads(pickle.dumps(data))[5]
    assert all(torch.equal(a, b) for a, b in zip(before, copied, strict=True))
