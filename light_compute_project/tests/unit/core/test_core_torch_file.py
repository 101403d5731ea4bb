"""Files of torch.save: those that torch writes pass; bombs and damaged ones cost one error and little time."""

from __future__ import annotations

import io
import pickle
import struct
import time
import tracemalloc
import zipfile
from pathlib import Path

import pytest
import torch

from litgpt_core import checkpoint
from litgpt_core.core.errors import CheckpointError
from litgpt_core.core.torch_file import MAX_DEPTH, TorchFileError, archive_entries, check_pickle, check_torch_file

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures"


def doubling_key() -> bytes:
    """{t: 1} where t is a tuple of twice the tuple before, 60 times."""
    steps = b"".join(bytes([*b"h", i, *b"h", i, *b"\x86q", i + 1, *b"0"]) for i in range(60))
    return b"\x80\x02}q\xf0K\x01q\x000" + steps + b"(h\x3cK\x01u."


BOMBS = {
    "a tuple that doubles as a key": (doubling_key(), "by repeating"),
    "a list that doubles": (
        b"\x80\x02]q\x00" + b"".join(bytes([*b"]q", i + 1, *b"(h", i, *b"h", i, *b"e"]) for i in range(60)) + b".",
        "by repeating",
    ),
    "a deep tuple": (b"\x80\x02K\x01" + b"\x85" * 200_000 + b".", f"more than {MAX_DEPTH} levels"),
    "a far place in the memo": (b"\x80\x02K\x01r\xff\xff\xff\x7f.", "at place 2,147,483,647"),
    "many opcodes": (b"\x80\x02" + b"N0" * 260_000 + b"N.", "opcodes"),
    "memory from one call": (b"\x80\x02cbuiltins\nbytearray\n\x8a\x06\x00\x00\x00\x00\x00\x01\x85R.", "bytearray"),
    "the same in protocol 4": (b"\x80\x04\x8c\x08builtins\x8c\tbytearray\x93\x8a\x02\x00\x01\x85R.", "bytearray"),
    "a slow codec": (b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX\x04\x00\x00\x00idna\x86R.", "_codecs.encode"),
    "a registered extension": (b"\x80\x02\x82\x01.", "EXT1"),
    "an empty stack": (b"\x80\x020.", "corrupted"),
    "a missing mark": (b"\x80\x02K\x01t.", "corrupted"),
    "an unknown place": (b"\x80\x02h\x05.", "corrupted"),
    "no end": (b"\x80\x02K\x01", "corrupted"),
    "a long text that is not there": (b"\x80\x02\x8d\xff\xff\xff\xff\xff\xff\xff\x7f.", "corrupted"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_hostile_pickle_is_refused_before_it_is_built(name: str, tmp_path: Path) -> None:
    data, message = BOMBS[name]
    start = time.process_time()
    if len(data) < 300_000:  # tracing takes ten times as long as the work
        tracemalloc.start()
    try:
        with pytest.raises(TorchFileError, match=message):
            check_pickle(io.BytesIO(data))
        assert tracemalloc.get_traced_memory()[1] < 100e6
    finally:
        tracemalloc.stop()
    assert time.process_time() - start < 4
    with zipfile.ZipFile(tmp_path / "lit_model.pth", "w") as archive:
        archive.writestr("archive/data.pkl", data)
        archive.writestr("archive/version", "3\n")
    with pytest.raises(CheckpointError, match=message):
        checkpoint.load_weights(tmp_path / "lit_model.pth")


def test_what_torch_writes_passes(tmp_path: Path) -> None:
    files = [*FIXTURES.rglob("*.pth"), *FIXTURES.rglob("*.pt"), *FIXTURES.rglob("*.lora")]
    assert len(files) >= 6
    values = {"a": torch.ones(3), "b": [1, 2.5, None, "text", (1, (2, 3))], "c": {"d": torch.zeros(0)}}
    for name, how in (("new", {}), ("old", {"_use_new_zipfile_serialization": False}), ("4", {"pickle_protocol": 4})):
        torch.save(values, tmp_path / name, **how)
        files.append(tmp_path / name)
    for file in files:
        check_torch_file(file)
    shared = torch.ones(5)
    torch.save({f"layers.{i}.weight": shared for i in range(10_000)}, tmp_path / "tied")
    check_torch_file(tmp_path / "tied")


def test_repeated_small_values_are_no_bomb() -> None:
    pair = (0.9, 0.95)
    check_pickle(io.BytesIO(pickle.dumps([{"betas": pair, "name": "adamw"} for _ in range(5_000)], protocol=2)))


def _archive(file: Path, **entries: bytes) -> Path:
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in entries.items():
            archive.writestr(f"archive/{name}", data)
    return file


def test_compressed_and_overlapping_entries_are_refused(tmp_path: Path) -> None:
    bomb = tmp_path / "bomb.pth"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}))
        archive.writestr("archive/data/0", bytes(50_000_000))
    for mmap in (True, False):
        with pytest.raises(CheckpointError, match="compressed, which torch"):
            checkpoint.load_weights(bomb, mmap=mmap)
    file = _archive(tmp_path / "overlap.pth", **{"data.pkl": b"N.", "data": b"x" * 1000})
    content = bytearray(file.read_bytes())
    at = content.rfind(b"PK\x01\x02")
    content[at + 20 : at + 28] = struct.pack("<II", 10**6, 10**6)
    file.write_bytes(content)
    with pytest.raises(TorchFileError, match="overlap"):
        archive_entries(file)


@pytest.mark.parametrize("kind", ["empty", "zeros", "half", "version", "name", "directory", "repeated", "no pickle"])
def test_a_damaged_archive_is_one_error(kind: str, tmp_path: Path) -> None:
    file = _archive(tmp_path / "a.pth", **{"data.pkl": b"N.", "version": b"3"})
    content = bytearray(file.read_bytes())
    at, end = content.find(b"PK\x01\x02"), content.rfind(b"PK\x05\x06")
    if kind == "version":
        content[at + 6] = 99  # needs version 9.9 to extract
    elif kind == "name":
        content[at + 9] |= 8  # the name is UTF-8
        content[at + 46] = 0xFF
    elif kind == "directory":
        content[end + 12 : end + 16] = struct.pack("<I", 0xFFFFFFF0)
    elif kind == "no pickle":
        content = content.replace(b"archive/data.pkl", b"archive/data.pkx")
    content = {"empty": bytearray(), "zeros": bytearray(1000), "half": content[:60]}.get(kind, content)
    file.write_bytes(content)
    if kind == "repeated":
        with zipfile.ZipFile(file, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("archive/data.pkl", b"N.")
    with pytest.raises(TorchFileError):
        archive_entries(file)
    with pytest.raises(CheckpointError, match=r"a\.pth"):
        checkpoint.load_weights(file)
