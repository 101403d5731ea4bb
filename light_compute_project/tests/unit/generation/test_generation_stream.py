"""Streamed text equals decoding all tokens at once, without incomplete characters."""

import functools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from litgpt_core import tokenizers
from litgpt_core.generation.stream import REPLACEMENT, StreamDecoder
from litgpt_core.tokenizers import ByteSettings, CharSettings, SubwordSettings
from litgpt_core.tokenizers.base import Tokenizer

DOCUMENTS = [
    "def greet(name):\n    return f'hello {name}'\n",
    "naïve café, größer: 你好世界, 🙂🚀 and 👩‍👩‍👧\n",
    "  indented\n\ttabs  and   spaces. It's here, isn't it?\n",
]
_letters = random.Random(1)
WORDS = ["".join(_letters.choices("etaoin shrdlu", k=60)) for _ in range(150)]
KINDS = ["char", "byte", "bpe", "wordpiece", "unigram", "sentencepiece"]


@functools.cache
def trained(kind: str) -> Tokenizer:
    if kind == "byte":
        return tokenizers.train(ByteSettings(), DOCUMENTS)
    if kind == "char":
        return tokenizers.train(CharSettings(), DOCUMENTS)
    return tokenizers.train(SubwordSettings(kind=kind, vocab_size=600), DOCUMENTS * 4 + WORDS)


class WholeOnly:
    """A tokenizer whose tokens have no bytes of their own, as some from elsewhere."""

    def __init__(self, inner: Tokenizer) -> None:
        self._inner = inner
        self.decode = inner.decode

    def token_bytes(self, token_id: int) -> None:
        return None


def streamed(tokenizer: object, ids: list[int], *, prompt_ids: list[int] = ()) -> list[str]:
    decoder = StreamDecoder(tokenizer, prompt_ids=prompt_ids)
    return [*(decoder.push(token_id) for token_id in ids), decoder.finish()]


@pytest.mark.parametrize("whole", [False, True], ids=["bytes", "whole"])
@pytest.mark.parametrize("kind", KINDS)
def test_streamed_text_joins_to_the_text(kind, whole):
    tokenizer = WholeOnly(trained(kind)) if whole else trained(kind)
    for document in DOCUMENTS:
        ids = trained(kind).encode(document)
        deltas = streamed(tokenizer, ids)
        assert "".join(deltas) == document == trained(kind).decode(ids)
        assert not any(REPLACEMENT in delta for delta in deltas)
        for cut in range(0, len(ids), 3):
            before = trained(kind).decode(ids[:cut])
            if REPLACEMENT not in before:
                assert before + "".join(streamed(tokenizer, ids[cut:], prompt_ids=ids[:cut])) == document


@pytest.mark.parametrize("kind", KINDS)
def test_any_ids_at_all_join_to_their_decoding(kind):
    """Models write nonsense too: halves of characters, specials, anything."""
    tokenizer, chance = trained(kind), random.Random(0)
    for _ in range(200):
        ids = [chance.randrange(tokenizer.vocab_size) for _ in range(chance.randrange(1, 12))]
        assert "".join(streamed(tokenizer, ids)) == tokenizer.decode(ids), ids


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=40))
def test_any_bytes_join_to_their_decoding(data):
    tokenizer = trained("byte")
    ids = list(data)
    expected = tokenizer.decode(ids)
    assert "".join(streamed(tokenizer, ids)) == expected
    assert "".join(streamed(WholeOnly(tokenizer), ids)) == expected


def test_a_character_of_four_bytes_comes_with_its_last_one():
    ids = trained("byte").encode("🙂!")
    assert streamed(trained("byte"), ids) == ["", "", "", "🙂", "!", ""]
    assert streamed(WholeOnly(trained("byte")), ids) == ["", "", "", "🙂", "!", ""]
    assert streamed(trained("byte"), ids[:2]) == ["", "", REPLACEMENT]


def test_a_tokenizer_that_changes_earlier_text_still_ends():
    class Rewriting:
        def token_bytes(self, token_id: int) -> None:
            return None

        def decode(self, ids: list[int]) -> str:
            return {1: "do", 2: "do no", 3: "don't"}[len(ids)]

    assert streamed(Rewriting(), [1, 2, 3]) == ["do", " no", "", "n't"]
