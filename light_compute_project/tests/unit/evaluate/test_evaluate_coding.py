"""Compression: the coder is exact for any symbols, a text comes back byte for byte, its size is its bits per byte."""

import math

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from litgpt_core.core.errors import CheckpointError, DataError, TokenizerError
from litgpt_core.data.document import Document
from litgpt_core.evaluate.arithmetic_coder import TOTAL, ArithmeticDecoder, ArithmeticEncoder, cumulative_frequencies
from litgpt_core.evaluate.coding import HEADER_BYTES, compress, decompress
from litgpt_core.evaluate.compressors import compressor_bits
from litgpt_core.evaluate.text_files import read_documents, read_text
from litgpt_core.evaluate.text_score import score_text


@given(seed=st.integers(0, 2**32), size=st.integers(2, 40), count=st.integers(0, 300), sharpness=st.floats(0.1, 60))
@settings(max_examples=60, deadline=None)
def test_symbols_come_back_at_their_cost(seed: int, size: int, count: int, sharpness: float) -> None:
    rng = np.random.default_rng(seed)
    weights = np.exp(sharpness * rng.standard_normal((count, size)))
    parts = [cumulative_frequencies(row / row.sum()) for row in weights]
    symbols = [int(rng.integers(size)) if rng.random() < 0.2 else int(row.argmax()) for row in weights]
    encoder, cost = ArithmeticEncoder(), 0.0
    for part, symbol in zip(parts, symbols, strict=True):
        assert part[0] == 0 and part[-1] == TOTAL and (np.diff(part) >= 1).all()
        encoder.encode(int(part[symbol]), int(part[symbol + 1] - part[symbol]))
        cost -= math.log2(int(part[symbol + 1] - part[symbol]) / TOTAL)
    data = encoder.finish()
    decoder = ArithmeticDecoder(data)
    assert [decoder.decode(part) for part in parts] == symbols
    assert 8 * len(data) <= cost + 2**-15 * count + 8


def test_a_carry_runs_through_bytes_of_255() -> None:
    """Symbols at the very top of the interval fill it with ones, then one above it makes the carry."""
    top = np.array([0, TOTAL - 2, TOTAL - 1, TOTAL])
    symbols = [1] * 40 + [2] * 40 + [0, 1, 2] * 5
    encoder = ArithmeticEncoder()
    for symbol in symbols:
        encoder.encode(int(top[symbol]), int(top[symbol + 1] - top[symbol]))
    decoder = ArithmeticDecoder(encoder.finish())
    assert [decoder.decode(top) for _ in symbols] == symbols


@pytest.fixture(scope="module")
def text() -> bytes:
    lines = "".join(f"def f{i}(x):\r\n    return x + {i * i}  # é\n" for i in range(60))
    return lines.encode()


def test_a_text_comes_back_and_has_the_size_of_its_bits(make_scorer, text: bytes) -> None:
    scorer = make_scorer()
    done = compress(scorer, text)
    assert decompress(scorer, done.data) == text
    expected = score_text(scorer, text.decode()).bits_per_byte
    assert abs(done.bits_per_byte / expected - 1) < 1e-3
    assert math.isclose(done.model_bits / done.n_bytes, expected, rel_tol=1e-4)


def test_another_model_is_refused(make_scorer, text: bytes) -> None:
    done = compress(make_scorer(), text[:40])
    with pytest.raises(CheckpointError, match="another model"):
        decompress(make_scorer(seed=4), done.data)


def test_damage_is_noticed(make_scorer, text: bytes) -> None:
    scorer = make_scorer()
    data = bytearray(compress(scorer, text[:60]).data)
    data[HEADER_BYTES + 3] ^= 16
    with pytest.raises(CheckpointError, match="damaged"):
        decompress(scorer, bytes(data))


@pytest.mark.parametrize(("raw", "problem"), [(b"", "empty"), (b"\xff\xfe", "not UTF-8")])
def test_what_is_no_text_is_refused(make_scorer, raw: bytes, problem: str) -> None:
    with pytest.raises(DataError, match=problem):
        compress(make_scorer(), raw)
    with pytest.raises(DataError, match="not a compressed text"):
        decompress(make_scorer(), raw)


def test_a_tokenizer_that_loses_text_is_refused(make_scorer, monkeypatch: pytest.MonkeyPatch) -> None:
    scorer = make_scorer()
    monkeypatch.setattr(type(scorer.tokenizer), "encode", lambda self, text: list(text.lower().encode()))
    with pytest.raises(TokenizerError, match="byte for byte"):
        compress(scorer, b"Text")


def test_compressors_have_the_size_of_their_files() -> None:
    found = compressor_bits([Document("", "a", "abc" * 2000), Document("", "b", "abc" * 2000)])
    assert 0 < found["xz"] < 0.2
    assert all(bits < 0.2 for bits in found.values())


def test_files_are_read_as_they_are(tmp_path) -> None:
    (tmp_path / "b.txt").write_bytes(b"one\r\ntwo")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "c.txt").write_bytes("é".encode())
    (tmp_path / "a" / "picture").write_bytes(b"\xff\x00")
    (tmp_path / "empty.txt").write_bytes(b"")
    assert [(d.name, d.text) for d in read_documents([tmp_path])] == [("a/c.txt", "é"), ("b.txt", "one\r\ntwo")]
    with pytest.raises(DataError, match="is empty"):
        read_text(tmp_path / "empty.txt")
    with pytest.raises(DataError, match=r"did you mean b\.txt"):
        read_text(tmp_path / "bb.txt")
    with pytest.raises(DataError, match="not UTF-8"):
        read_text(tmp_path / "a" / "picture")
    with pytest.raises(DataError, match="holds no text"):
        (tmp_path / "none").mkdir()
        read_documents([tmp_path / "none"])
