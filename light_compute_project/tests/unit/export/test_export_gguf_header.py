"""The header of a GGUF file: what is written is read, and a bad file costs one error and nothing else."""

from __future__ import annotations

import struct
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from litgpt_core.core.errors import CheckpointError
from litgpt_core.export.gguf.header import read_gguf
from litgpt_core.export.gguf.layout import TENSOR_TYPES
from litgpt_core.export.gguf.writing import NewTensor, write_gguf

METADATA = {
    "general.architecture": "llama",
    "llama.block_count": 2,
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
    "flag": True,
    "tokenizer.ggml.tokens": ["a", "é", ""],
    "tokenizer.ggml.scores": [0.0, -1.5, 2.0],
    "tokenizer.ggml.token_type": [1, 3, 6],
}
VALUES = np.arange(24, dtype=np.float32).reshape(4, 6)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    tensors = [
        NewTensor(name="a.weight", shape=(4, 6), type=TENSOR_TYPES[0], make=lambda: VALUES.reshape(-1).view(np.uint8)),
        NewTensor(name="b.weight", shape=(3,), type=TENSOR_TYPES[0], make=lambda: VALUES[0, :3].view(np.uint8)),
    ]
    path = tmp_path / "file.gguf"
    assert write_gguf(path, METADATA, tensors) == path.stat().st_size
    return path


def test_what_is_written_is_read(file: Path):
    found = read_gguf(file)
    plain = {key: value.tolist() if isinstance(value, np.ndarray) else value for key, value in found.metadata.items()}
    assert plain == METADATA
    assert {name: tensor.shape for name, tensor in found.tensors.items()} == {"a.weight": (4, 6), "b.weight": (3,)}
    assert np.array_equal(found.raw(found.tensors["a.weight"]).view("<f4"), VALUES.reshape(-1))


def test_another_reader_agrees(file: Path):
    gguf = pytest.importorskip("gguf", reason="the package gguf is not installed")
    theirs = gguf.GGUFReader(file)
    assert theirs.fields["tokenizer.ggml.tokens"].contents() == METADATA["tokenizer.ggml.tokens"]
    assert theirs.fields["llama.block_count"].contents() == 2
    assert {tensor.name: tuple(reversed(tensor.shape.tolist())) for tensor in theirs.tensors} == {
        "a.weight": (4, 6),
        "b.weight": (3,),
    }
    assert np.array_equal(theirs.tensors[0].data, VALUES)


def header(entries: bytes = b"", *, n_entries: int = 0, tensors: bytes = b"", n_tensors: int = 0) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", 3, n_tensors, n_entries) + entries + tensors


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def tensor(name: str, *shape: int, kind: int = 0, offset: int = 0) -> bytes:
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)


BAD = {
    "another format": (b"PK\x03\x04" + bytes(40), "no GGUF file"),
    "empty": (b"", "no GGUF file"),
    "only the magic": (b"GGUF", "truncated"),
    "version 1": (b"GGUF" + struct.pack("<IQQ", 1, 0, 0), "version 1"),
    "big-endian": (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "big-endian"),
    "10^12 entries": (header(n_entries=10**12), "metadata entries"),
    "10^12 tensors": (header(n_tensors=10**12), "tensors"),
    "a key of 2^63 bytes": (header(struct.pack("<Q", 2**63) + bytes(20), n_entries=1), "a key"),
    "a string of 10^12 bytes": (header(text("k") + struct.pack("<IQ", 8, 10**12), n_entries=1), "would take"),
    "an array of 10^12": (header(text("k") + struct.pack("<IIQ", 9, 4, 10**12), n_entries=1), "would take"),
    "10^12 strings": (header(text("k") + struct.pack("<IIQ", 9, 8, 10**12), n_entries=1), "strings"),
    "arrays of arrays": (header(text("k") + struct.pack("<IIQIIQ", 9, 9, 1, 9, 9, 1), n_entries=1), "type 9"),
    "unknown value type": (header(text("k") + struct.pack("<I", 99) + bytes(8), n_entries=1), "type 99"),
    "a key twice": (header(2 * (text("k") + struct.pack("<II", 4, 1)), n_entries=2), "twice"),
    "not UTF-8": (header(struct.pack("<Q", 2) + b"\xff\xfe" + struct.pack("<II", 4, 1), n_entries=1), "UTF-8"),
    "a tensor twice": (header(tensors=tensor("t", 8) + tensor("t", 8, offset=32), n_tensors=2) + bytes(96), "twice"),
    "overlap": (header(tensors=tensor("t", 64) + tensor("u", 8, offset=32), n_tensors=2) + bytes(512), "overlap"),
    "past the end": (header(tensors=tensor("t", 8, offset=4096), n_tensors=1) + bytes(64), "would end"),
    "huge shape": (header(tensors=tensor("t", 2**62, 2**62), n_tensors=1) + bytes(64), "would end"),
    "no elements": (header(tensors=tensor("t", 0), n_tensors=1) + bytes(64), "shape"),
    "200 dimensions": (header(tensors=text("t") + struct.pack("<I", 200) + bytes(64), n_tensors=1), "200 dimensions"),
    "unknown type": (header(tensors=tensor("t", 32, kind=77), n_tensors=1) + bytes(64), "type number 77"),
    "no whole block": (header(tensors=tensor("t", 33, kind=8), n_tensors=1) + bytes(64), "Q8_0"),
    "unaligned": (header(tensors=tensor("t", 8, offset=5), n_tensors=1) + bytes(64), "multiple"),
    "alignment 0": (header(text("general.alignment") + struct.pack("<II", 4, 0), n_entries=1), "alignment"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_one_error_at_once(name: str, tmp_path: Path):
    content, said = BAD[name]
    path = tmp_path / "bad.gguf"
    path.write_bytes(content)
    tracemalloc.start()
    began = time.perf_counter()
    with pytest.raises(CheckpointError, match=said):
        read_gguf(path)
    assert time.perf_counter() - began < 1
    assert tracemalloc.get_traced_memory()[1] < 5e6
    tracemalloc.stop()


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(CheckpointError, match="does not exist"):
        read_gguf(tmp_path / "none.gguf")


@settings(max_examples=400, deadline=1000, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    cut=st.integers(0, 2000),
    changes=st.lists(st.tuples(st.integers(0, 600), st.integers(0, 255)), max_size=4),
    wide=st.none() | st.tuples(st.integers(0, 600), st.integers(0, 2**64 - 1)),
)
def test_no_damage_raises_anything_else(
    file: Path, cut: int, changes: list[tuple[int, int]], wide: tuple[int, int] | None
):
    """Bytes changed, a length replaced, the end cut off: read, or refused by a CheckpointError."""
    content = bytearray(file.read_bytes())
    for place, value in changes:
        content[place % len(content)] = value
    if wide is not None:
        place = wide[0] % (len(content) - 8)
        content[place : place + 8] = struct.pack("<Q", wide[1])
    damaged = file.with_name("damaged.gguf")
    damaged.write_bytes(bytes(content[: max(0, len(content) - cut)] if cut < 1000 else content))
    try:
        found = read_gguf(damaged)
    except CheckpointError:
        return
    for each in found.tensors.values():
        assert len(found.raw(each)) == each.n_bytes
