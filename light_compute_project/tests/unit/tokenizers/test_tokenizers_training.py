"""Training gives exactly the requested vocabulary, the same each time, or names the size that the text supports."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from litgpt_core.core.errors import ConfigError, TokenizerError
from litgpt_core.tokenizers import huggingface, sentencepiece_bpe
from litgpt_core.tokenizers.base import Tokenizer
from litgpt_core.tokenizers.registry import train
from litgpt_core.tokenizers.sampling import sample_documents
from litgpt_core.tokenizers.settings import (
    KINDS,
    SUBWORD_KINDS,
    ByteSettings,
    CharSettings,
    SubwordSettings,
    TokenizerSettings,
)

SettingsOf = Callable[..., TokenizerSettings]


@pytest.mark.parametrize("kind", SUBWORD_KINDS)
def test_the_vocabulary_has_the_size_asked_for(trained: dict[str, Tokenizer], kind: str) -> None:
    assert trained[kind].vocab_size == 1024
    assert trained[kind].kind == kind


@pytest.mark.parametrize("kind", ["char", "byte", "bpe", "wordpiece", "sentencepiece"])  # unigram: documented as not
def test_training_twice_gives_the_same_file(
    settings_of: SettingsOf, trained: dict[str, Tokenizer], python_documents: list[str], kind: str
) -> None:
    assert train(settings_of(kind), iter(python_documents)).fingerprint() == trained[kind].fingerprint()


@pytest.mark.parametrize("kind", SUBWORD_KINDS)
def test_a_vocabulary_too_large_names_a_size_that_works(settings_of: SettingsOf, kind: str) -> None:
    text = ["the cat sat on the mat and the dog sat on the cat\n" * 5]
    with pytest.raises(TokenizerError, match="supports only") as caught:
        train(settings_of(kind, vocab_size=4096), text)
    advised = re.fullmatch(r"tokenizer\.vocab_size=(\d+)", caught.value.fix)
    assert advised is not None
    assert train(settings_of(kind, vocab_size=int(advised[1])), text).vocab_size == int(advised[1])


@pytest.mark.parametrize("kind", SUBWORD_KINDS)
@pytest.mark.parametrize("size", [1, 200, 256])
def test_a_vocabulary_too_small_is_refused_with_a_better_one(settings_of: SettingsOf, kind: str, size: int) -> None:
    with pytest.raises(TokenizerError, match="too small") as caught:
        train(settings_of(kind, vocab_size=size), ["some text to learn from"])
    assert caught.value.fix == "tokenizer.vocab_size=4096"


@pytest.mark.parametrize("kind", ["char", *SUBWORD_KINDS])
@pytest.mark.parametrize("documents", [[], ["", ""]])
def test_no_text_is_an_error(settings_of: SettingsOf, kind: str, documents: list[str]) -> None:
    with pytest.raises(TokenizerError, match="hold no text"):
        train(settings_of(kind), documents)


def test_text_of_reserved_characters_only_is_an_error_for_sentencepiece(settings_of: SettingsOf) -> None:
    with pytest.raises(TokenizerError, match="no text"):
        train(settings_of("sentencepiece"), ["\u2581\u2585"])


@pytest.mark.parametrize("kind", ["char", *SUBWORD_KINDS])
def test_a_lone_surrogate_in_the_training_text_is_refused(settings_of: SettingsOf, kind: str) -> None:
    with pytest.raises(TokenizerError, match="surrogate"):
        train(settings_of(kind), ["fine", "bad \ud800"])


def test_bytes_need_no_documents() -> None:
    def untouched() -> Iterator[str]:
        raise AssertionError("the byte tokenizer has nothing to learn")
        yield ""

    assert train(ByteSettings(), untouched()).vocab_size == 256


def test_sentencepiece_joins_newline_and_indentation_and_keeps_tabs(
    settings_of: SettingsOf, trained: dict[str, Tokenizer]
) -> None:
    tokenizer = trained["sentencepiece"]
    assert b"\n    " in [tokenizer.token_bytes(token_id) for token_id in tokenizer.encode("x:\n    y")]
    tabbed = train(settings_of("sentencepiece", vocab_size=300), ["if x:\n\t\treturn y\n" * 50])
    assert any(b"\n\t" in (tabbed.token_bytes(token_id) or b"") for token_id in range(300))


def test_no_sentencepiece_piece_ends_a_word_with_its_space(trained: dict[str, Tokenizer]) -> None:
    pieces = [trained["sentencepiece"].token_bytes(token_id) or b"" for token_id in range(259, 1024)]
    assert not [piece for piece in pieces if re.search(rb"[^ \n] $", piece)]


@pytest.mark.parametrize("kind", SUBWORD_KINDS)
def test_cutting_long_text_changes_no_id(
    trained: dict[str, Tokenizer], python_documents: list[str], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "".join(python_documents)[:60_000]
    home = sentencepiece_bpe if kind == "sentencepiece" else huggingface
    monkeypatch.setattr(home, "_PART", 10**9)
    whole = trained[kind].encode(text)
    for size in (1, 100, 4096):
        monkeypatch.setattr(home, "_PART", size)
        assert trained[kind].encode(text) == whole


@given(
    documents=st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=60), min_size=1, max_size=30).filter(
        any
    ),
    max_bytes=st.integers(4, 400),
    seed=st.integers(0, 3),
)
def test_a_sample_is_bounded_ordered_and_repeatable(documents: list[str], max_bytes: int, seed: int) -> None:
    sample = sample_documents(iter(documents), max_bytes=max_bytes, seed=seed)
    assert 0 < len("".join(sample).encode()) <= max_bytes
    assert sample == sample_documents(documents, max_bytes=max_bytes, seed=seed)
    text, at = "".join(documents), 0
    for chunk in sample:
        at = text.index(chunk, at) + len(chunk)


def test_a_sample_takes_all_that_fits_and_depends_on_the_seed() -> None:
    documents = [f"document {number}\n" for number in range(200)]
    assert sample_documents(documents, max_bytes=10**6, seed=0) == documents
    assert sample_documents(documents, max_bytes=500, seed=0) != sample_documents(documents, max_bytes=500, seed=1)


def test_settings_name_every_problem_at_once(settings_of: SettingsOf) -> None:
    with pytest.raises(ConfigError, match=r"vocab_size=0(.|\n)*max_train_bytes=-1(.|\n)*seed"):
        SubwordSettings(kind="bpe", vocab_size=0, max_train_bytes=-1, seed=-5)
    with pytest.raises(ConfigError, match="'char'"):
        SubwordSettings(kind="char", vocab_size=10)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="tokenizer=byte"):
        CharSettings(kind="byte")  # type: ignore[arg-type]
    assert [settings_of(kind).kind for kind in KINDS] == list(KINDS)


def test_words_are_chosen_for_bpe_alone_and_by_known_names() -> None:
    for kind, words in (("unigram", "gpt2"), ("sentencepiece", "qwen2"), ("bpe", "llama4")):
        with pytest.raises(ConfigError, match=r"tokenizer\.words"):
            SubwordSettings(kind=kind, vocab_size=300, words=words)  # type: ignore[arg-type]


def test_prepared_folders_of_before_are_found_again() -> None:
    from litgpt_core.data.prepared_folder import tokenizer_identity

    before = {"kind": "bpe", "vocab_size": 300, "max_train_bytes": 20_000_000, "seed": 1337}
    assert tokenizer_identity(SubwordSettings(kind="bpe", vocab_size=300)) == before
    cut = tokenizer_identity(SubwordSettings(kind="bpe", vocab_size=300, words="gpt2"))
    assert cut == {**before, "words": "gpt2"}
