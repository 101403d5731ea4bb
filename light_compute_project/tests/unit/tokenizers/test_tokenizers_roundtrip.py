"""Whatever the text, encoding and decoding give it back, and the bytes of the tokens are the bytes of the text."""

from __future__ import annotations

import codecs

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from litgpt_core.core.errors import TokenizerError
from litgpt_core.tokenizers import base
from litgpt_core.tokenizers.base import Tokenizer
from litgpt_core.tokenizers.byte_alphabet import BYTE_TO_CHARACTER, CHARACTER_TO_BYTE
from litgpt_core.tokenizers.settings import KINDS, SUBWORD_KINDS

TRICKY = [
    "", " ", "   ", "\t", "\n", "\r", "\r\n", "\n    ", "\n\n\t\t", " leading", "trailing  ", "a  b   c",
    "\u2581", " \u2581 \u2581x", "\u2585", "\u2040", "##", "#", "\ue000", "\ue000\ue000 ", "\ufffd", "\ufeff",
    "\x00", "\x01\x02\x7f\x85", "\u2028", "é", "e\u0301", "👩\u200d👩\u200d👧", "🇩🇪", "𝔘𝔫𝔦", "\U0010ffff",
    "<s>", "</s>", "<unk>", "<0x41>", "<|endoftext|>", "⁇", "Ā", "世界", "0123456789",
    "def f(x):\n    return x\n", "x" * 300, "_" * 70, "!" * 130, " " * 200, "\n" * 90,
]  # fmt: skip
anything = st.lists(
    st.sampled_from(TRICKY) | st.text(st.characters(exclude_categories=["Cs"]), max_size=12), max_size=8
).map("".join)
examples = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def writable(tokenizer: Tokenizer, text: str) -> str:
    """`text` without what the kind refuses: NUL for byte, characters outside the vocabulary for char."""
    if tokenizer.kind == "byte":
        return text.replace("\x00", "")
    if tokenizer.kind == "char":
        known = {tokenizer.decode([token_id]) for token_id in range(tokenizer.eos_id)}
        return "".join(character for character in text if character in known)
    return text


def assert_lossless(tokenizer: Tokenizer, text: str) -> None:
    """The three promises of the face, for one text."""
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert b"".join(tokenizer.token_bytes(token_id) or b"" for token_id in ids) == text.encode()
    assert not set(ids) & tokenizer.special_ids()
    assert all(0 <= token_id < tokenizer.vocab_size for token_id in ids)


@pytest.mark.parametrize("kind", KINDS)
@examples
@given(text=anything)
def test_any_text_survives(trained: dict[str, Tokenizer], kind: str, text: str) -> None:
    assert_lossless(trained[kind], writable(trained[kind], text))


@pytest.mark.parametrize("kind", SUBWORD_KINDS)
@pytest.mark.parametrize("text", TRICKY)
def test_each_tricky_text_survives_alone_and_between_words(trained: dict[str, Tokenizer], kind: str, text: str) -> None:
    assert_lossless(trained[kind], text)
    assert_lossless(trained[kind], f"before{text}after")


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_equals_single_texts_with_any_number_of_threads(
    trained: dict[str, Tokenizer], python_documents: list[str], kind: str
) -> None:
    tokenizer = trained[kind]
    texts = [writable(tokenizer, text) for text in [*TRICKY, *python_documents[:3]]]
    one_by_one = [tokenizer.encode(text) for text in texts]
    for threads in (0, 1, 2):
        assert tokenizer.encode_batch(texts, threads=threads) == one_by_one
    assert tokenizer.encode_batch([]) == []


@pytest.mark.parametrize("kind", KINDS)
def test_specials_are_skipped_by_decode_and_have_no_bytes(trained: dict[str, Tokenizer], kind: str) -> None:
    tokenizer = trained[kind]
    ids = tokenizer.encode("abc def")
    for special in tokenizer.special_ids():
        assert tokenizer.decode([special, *ids, special]) == "abc def"
        assert tokenizer.token_bytes(special) == b""
    assert tokenizer.eos_id in tokenizer.special_ids()


@pytest.mark.parametrize("kind", KINDS)
def test_streaming_the_token_bytes_gives_the_text(trained: dict[str, Tokenizer], kind: str) -> None:
    tokenizer = trained[kind]
    text = writable(tokenizer, "def größe():\n\treturn '世界 👩‍👩‍👧'\n")
    decoder = codecs.getincrementaldecoder("utf-8")()
    shown = "".join(decoder.decode(tokenizer.token_bytes(token_id) or b"") for token_id in tokenizer.encode(text))
    assert shown + decoder.decode(b"", final=True) == text


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bad", [-1, 10**9])
def test_an_unknown_id_is_named(trained: dict[str, Tokenizer], kind: str, bad: int) -> None:
    with pytest.raises(TokenizerError, match=f"{bad} at position 1"):
        trained[kind].decode([trained[kind].encode("a")[0], bad])


@pytest.mark.parametrize("kind", KINDS)
def test_a_lone_surrogate_is_refused(trained: dict[str, Tokenizer], kind: str) -> None:
    with pytest.raises(TokenizerError, match=r"ud83d|U\+D83D"):
        trained[kind].encode("ab\ud83d")


def test_incomplete_utf8_becomes_a_replacement_character(trained: dict[str, Tokenizer]) -> None:
    assert trained["byte"].decode([0x41, 0xE4, 0xB8]) == "A\ufffd"


def test_byte_ids_are_byte_values_and_nul_is_refused_with_its_offset(trained: dict[str, Tokenizer]) -> None:
    tokenizer = trained["byte"]
    assert tokenizer.vocab_size == 256 and tokenizer.eos_id == 0
    assert tokenizer.encode("é\n") == [0xC3, 0xA9, 0x0A]
    with pytest.raises(TokenizerError, match="byte offset 3"):
        tokenizer.encode("aé\x00b")


def test_char_ids_follow_code_points_and_the_end_token_is_last(
    trained: dict[str, Tokenizer], python_documents: list[str]
) -> None:
    tokenizer = trained["char"]
    characters = sorted(set("".join(python_documents)))
    assert tokenizer.vocab_size == len(characters) + 1
    assert tokenizer.eos_id == len(characters)
    assert tokenizer.encode("".join(characters)) == list(range(len(characters)))


@pytest.mark.parametrize("stranger", ["\u0180", "\U0010fffe", "\x03"])
def test_char_names_the_stranger_its_place_and_a_way_out(trained: dict[str, Tokenizer], stranger: str) -> None:
    with pytest.raises(TokenizerError, match=r"U\+[0-9A-F]{4,6}\) at position 2(.|\n)*tokenizer=byte"):
        trained["char"].encode(f"ab{stranger}{stranger}")


def test_the_byte_alphabet_is_gpt2s() -> None:
    assert len(CHARACTER_TO_BYTE) == 256
    assert [BYTE_TO_CHARACTER[value] for value in (0x20, 0x0A, 0x41, 0x00, 0x7F, 0xAD, 0xFF)] == list("ĠĊAĀġŃÿ")


@pytest.mark.parametrize("kind", ["char", "byte", *SUBWORD_KINDS])
def test_arrays_of_long_texts_in_parts_hold_the_same_ids(
    trained: dict[str, Tokenizer], kind: str, python_documents: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "LONG_TEXT", 5_000)
    texts = ["", "short", "".join(python_documents[:5]), "x" * 6_000, *python_documents[-3:], "end"]
    texts += ["a\u2581b " * 2_000] if kind not in ("char", "wordpiece") else []
    found = [ids.tolist() for ids in trained[kind].encode_plain_arrays(texts)]
    assert found == trained[kind].encode_plain_batch(texts)
