"""Prepared folders: right tokens, found again only when everything matches, safe with several processes."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from litgpt_core.core.errors import DataError
from litgpt_core.core.lock import exclusive
from litgpt_core.data import prepared_folder, text_prepare
from litgpt_core.data.ngram import reference_losses
from litgpt_core.data.prepare import open_prepared, prepare
from litgpt_core.data.settings import TextSettings
from litgpt_core.tokenizers.registry import load
from litgpt_core.tokenizers.settings import ByteSettings, CharSettings, SubwordSettings


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    folder = tmp_path / "texts"
    folder.mkdir()
    for i in range(12):
        content = "".join(f"{i} line {j * (i + 1)} of this text, é\r\n" for j in range(30))
        (folder / f"t{i:02d}.txt").write_bytes(content.encode())
    return folder


def settings(texts: Path, **changes: object) -> TextSettings:
    return TextSettings(**{"path": str(texts), "cache_dir": str(texts.parent / "cache"), **changes})


def decoded(path: Path, folder: Path) -> list[str]:
    """The documents of a shard, cut at the end-of-document id."""
    tokenizer = load(folder / "tokenizer")
    ids = np.fromfile(path, dtype="<u2").tolist()
    assert ids[-1] == tokenizer.eos_id
    ends = [i for i, token in enumerate(ids) if token == tokenizer.eos_id]
    return [tokenizer.decode(ids[a:b]) for a, b in zip([0, *(e + 1 for e in ends)], ends, strict=False)]


def test_shards_hold_the_documents_followed_by_eos(texts: Path) -> None:
    prepared = prepare(settings(texts), ByteSettings())
    train, val = decoded(prepared.train_path, prepared.directory), decoded(prepared.val_path, prepared.directory)
    originals = sorted(path.read_bytes().decode() for path in texts.iterdir())
    assert sorted(train + val) == originals
    assert prepared.val_bytes == sum(len(text.encode()) for text in val)
    assert prepared.val_tokens == prepared.val_bytes + len(val)
    assert prepared.train_tokens == prepared.train_path.stat().st_size // 2
    assert (prepared.dtype, prepared.vocab_size) == ("uint16", load(prepared.tokenizer_dir).vocab_size)
    assert prepared.val_tokens_per_byte == prepared.val_tokens / prepared.val_bytes
    assert prepared.directory.name == f"text-{prepared.fingerprint[:12]}"
    assert sorted(path.name for path in prepared.directory.parent.iterdir()) == [prepared.directory.name]


def test_reference_losses_are_those_of_the_shards(texts: Path) -> None:
    prepared = prepare(settings(texts), ByteSettings())
    train, val = (np.fromfile(path, dtype="<u2") for path in (prepared.train_path, prepared.val_path))
    losses = reference_losses(train, val, vocab_size=prepared.vocab_size)
    assert prepared.references == {"unigram": losses.unigram, "bigram": losses.bigram}
    assert losses.bigram < losses.unigram


def test_a_tail_split_has_no_eos_and_trains_its_tokenizer_on_train_only(tmp_path: Path) -> None:
    text = "to be or not to be\n" * 90 + "TO BE\n"
    (tmp_path / "one.txt").write_bytes(text.encode())
    data = settings(tmp_path / "one.txt", split="tail", val_fraction=0.2)
    prepared = prepare(data, ByteSettings())
    tokenizer = load(prepared.tokenizer_dir)
    ids = [np.fromfile(path, dtype="<u2").tolist() for path in (prepared.train_path, prepared.val_path)]
    assert tokenizer.eos_id not in ids[0] + ids[1]
    assert tokenizer.decode(ids[0] + ids[1]) == text
    assert prepared.meta["append_eos"] is False
    seen: list[str] = []

    def record(_: object, documents: object) -> object:
        seen.extend(documents)  # type: ignore[arg-type]
        return tokenizer

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prepared_folder, "train_tokenizer", record)
        prepare(data, SubwordSettings(kind="bpe", vocab_size=300))
    assert seen == [text[: int(len(text) * 0.8)]]


def test_a_character_that_only_validation_has_is_in_a_character_vocabulary(tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text("to be or not to be\n" * 90 + "€\n", encoding="utf-8")
    prepared = prepare(settings(tmp_path / "one.txt", split="tail"), CharSettings())
    tokenizer = load(prepared.tokenizer_dir)
    assert tokenizer.decode(np.memmap(prepared.val_path, dtype=prepared.dtype, mode="r").tolist()).endswith("€\n")


def test_wide_vocabularies_use_uint32() -> None:
    from litgpt_core.data.shards import token_dtype

    assert [token_dtype(n) for n in (256, 65_536, 65_537)] == ["uint16", "uint16", "uint32"]


def test_the_same_settings_find_the_same_folder(texts: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = prepare(settings(texts), ByteSettings())
    stamp = first.train_path.stat().st_mtime_ns
    with caplog.at_level(logging.INFO):
        second = prepare(settings(texts), ByteSettings())
    assert (second, second.train_path.stat().st_mtime_ns) == (first, stamp)
    assert f"using {first.directory}" in caplog.text
    assert open_prepared(first.directory) == first


def test_where_things_lie_does_not_matter_and_what_they_are_does(texts: Path) -> None:
    first = prepare(settings(texts), ByteSettings())
    moved = texts.rename(texts.with_name("moved"))
    assert prepare(settings(moved), ByteSettings()).fingerprint == first.fingerprint
    fingerprints = {first.fingerprint, prepare(settings(moved), CharSettings()).fingerprint}
    fingerprints.add(prepare(settings(moved, split_seed=1), ByteSettings()).fingerprint)
    fingerprints.add(prepare(settings(moved, val_fraction=0.3), ByteSettings()).fingerprint)
    (moved / "t00.txt").write_text("changed\n" * 30, encoding="utf-8")
    fingerprints.add(prepare(settings(moved), ByteSettings()).fingerprint)
    assert len(fingerprints) == 5


def damage_size(folder: Path) -> None:
    with (folder / "val.bin").open("ab") as file:
        file.write(b"xx")


def damage_meta(folder: Path) -> None:
    meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
    meta["reference_losses"]["unigram"] = 0.0
    (folder / "meta.json").write_text(json.dumps(meta), encoding="utf-8")


def damage_fingerprint(folder: Path) -> None:
    meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
    (folder / "meta.json").write_text(json.dumps(meta | {"fingerprint": "0" * 64}), encoding="utf-8")


def damage_version(folder: Path) -> None:
    meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
    (folder / "meta.json").write_text(json.dumps(meta | {"format_version": 0}), encoding="utf-8")


def damage_tokenizer(folder: Path) -> None:
    (folder / "tokenizer" / "tokenizer.json").write_text("{}", encoding="utf-8")


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (damage_size, "val.bin has"),
        (damage_meta, "meta.json was edited"),
        (damage_fingerprint, "its fingerprint is 0000"),
        (damage_version, "its format version is 0"),
        (damage_tokenizer, "tokenizer/tokenizer.json was changed"),
        (lambda folder: (folder / "meta.json").write_text("{", encoding="utf-8"), "meta.json is broken"),
        (lambda folder: (folder / "meta.json").unlink(), "meta.json: No such file"),
        (lambda folder: (folder / "train.bin").unlink(), "train.bin: No such file"),
    ],
)
def test_a_damaged_folder_is_made_again_and_says_why(
    texts: Path, damage: object, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    first = prepare(settings(texts), ByteSettings())
    expected = first.val_path.read_bytes()
    damage(first.directory)  # type: ignore[operator]
    with pytest.raises(DataError, match="not a usable prepared folder"):
        # a wrong fingerprint shows without settings only as an edited meta.json
        open_prepared(first.directory)
    second = prepare(settings(texts), ByteSettings())
    assert f"preparing {first.directory} again: {reason}" in caplog.text
    assert (second.meta, second.val_path.read_bytes()) == (first.meta, expected)
    assert [path.name for path in first.directory.parent.iterdir()] == [first.directory.name]


def test_a_failed_preparation_leaves_nothing(texts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise DataError("stopped half-way")

    monkeypatch.setattr(text_prepare, "reference_losses", fail)
    with pytest.raises(DataError, match="half-way"):
        prepare(settings(texts), ByteSettings())
    assert list((texts.parent / "cache").iterdir()) == []


def test_leftovers_of_a_killed_process_are_removed(texts: Path) -> None:
    first = prepare(settings(texts), ByteSettings())
    leftover = first.directory.with_name(f".{first.directory.name}.tmp-1-abc")
    first.directory.rename(leftover)
    prepare(settings(texts), ByteSettings())
    assert not leftover.exists()


def test_a_folder_that_cannot_be_written_is_named(texts: Path) -> None:
    blocked = texts.parent / "file"
    blocked.write_text("x", encoding="utf-8")
    with pytest.raises(DataError, match=r"cannot write prepared data.*\n.*\n.*data\.cache_dir="):
        prepare(settings(texts, cache_dir=str(blocked / "cache")), ByteSettings())


def race(texts: str, start: object, results: object) -> None:
    start.wait()  # type: ignore[attr-defined]
    prepared = prepare(settings(Path(texts)), ByteSettings())
    results.put((os.getpid(), str(prepared.directory), prepared.fingerprint))  # type: ignore[attr-defined]


@pytest.mark.parametrize("locks", [True, False])
def test_racing_processes_share_one_folder(texts: Path, locks: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if "fork" not in multiprocessing.get_all_start_methods():
        pytest.skip("the children must inherit this process's replaced lock function")
    if not locks:
        monkeypatch.setattr("litgpt_core.core.lock._try_lock", no_locks)
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(2), context.Queue()
    workers = [context.Process(target=race, args=(str(texts), barrier, results)) for _ in range(2)]
    for worker in workers:
        worker.start()
    found = [results.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join(timeout=60)
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert len({pid for pid, *_ in found}) == 2
    assert len({(folder, fingerprint) for _, folder, fingerprint in found}) == 1
    (folder,) = (texts.parent / "cache").iterdir()
    assert len(decoded(folder / "val.bin", folder)) + len(decoded(folder / "train.bin", folder)) == 12


def no_locks(_: int) -> None:
    raise OSError(95, "Operation not supported")


def test_the_lock_excludes_others(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    order: list[str] = []

    def second() -> None:
        with exclusive(tmp_path / "lock", purpose="second") as held:
            order.append(f"second {held}")

    with caplog.at_level(logging.INFO), exclusive(tmp_path / "lock", purpose="first") as held:
        worker = threading.Thread(target=second)
        worker.start()
        time.sleep(0.3)
        order.append(f"first {held}")
    worker.join(timeout=10)
    assert order == ["first True", "second True"]
    assert "waiting for another process: second" in caplog.text
    assert not (tmp_path / "lock").exists()


def hold_forever(path: str, holding: object) -> None:
    with exclusive(Path(path), purpose="holding"):
        holding.set()  # type: ignore[attr-defined]
        time.sleep(600)


def test_the_lock_dies_with_its_holder(tmp_path: Path) -> None:
    context = multiprocessing.get_context()
    holding = context.Event()
    holder = context.Process(target=hold_forever, args=(str(tmp_path / "lock"), holding))
    holder.start()
    assert holding.wait(timeout=60)
    holder.kill()
    holder.join(timeout=60)
    assert (tmp_path / "lock").exists()
    start = time.perf_counter()
    with exclusive(tmp_path / "lock", purpose="after it") as held:
        assert held
    assert time.perf_counter() - start < 5


def test_the_slower_of_two_uses_the_folder_of_the_faster(texts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without locks both build; the second finds the target in place when it is done."""
    monkeypatch.setattr("litgpt_core.core.lock._try_lock", no_locks)
    build, inner = text_prepare._build, []

    def slow_build(*args: object, **kwargs: object) -> None:
        build(*args, **kwargs)  # type: ignore[arg-type]
        if not inner:
            inner.append("started")
            inner.append(prepare(settings(texts), ByteSettings()))

    monkeypatch.setattr(text_prepare, "_build", slow_build)
    slower = prepare(settings(texts), ByteSettings())
    assert slower == inner[1]
    assert [path.name for path in (texts.parent / "cache").iterdir()] == [slower.directory.name]
