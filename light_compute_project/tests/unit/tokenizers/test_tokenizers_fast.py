"""gigatoken gives the reference's ids for any text, is refused where it does not, and is watched while it works."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from litgpt_core.core.errors import TokenizerError
from litgpt_core.data.prepare import prepare
from litgpt_core.data.stream_settings import RowsSettings
from litgpt_core.tokenizers import fast
from litgpt_core.tokenizers.base import Tokenizer
from litgpt_core.tokenizers.registry import train
from litgpt_core.tokenizers.settings import ByteSettings, SubwordSettings
from litgpt_core.tokenizers.words import Words

gigatoken = pytest.importorskip("gigatoken")
TEXT = (
    "It's 1234 o'clock; we'd say naïve Straße, 日本語 and 🙂.\n\n    if x_1 == {}:\n        return [i]\n"
    "WE'LL see:\r\n\tЭто текст. مرحبا 12,345.67 <a href='x'>…</a>\n"
)
KNOWN: tuple[Words, ...] = ("gpt2", "llama3", "qwen2")


def trained(words: Words) -> Tokenizer:
    return train(SubwordSettings(kind="bpe", vocab_size=420, words=words), [TEXT * 3])


@pytest.fixture(scope="module")
def tokenizers() -> dict[str, Tokenizer]:
    found = {words: trained(words) for words in KNOWN}
    assert all(tokenizer.use_fast([TEXT]) for tokenizer in found.values())
    return found


def arrays(tokenizer: Tokenizer, texts: list[str]) -> list[list[int]]:
    return [ids.tolist() for ids in tokenizer.encode_plain_arrays(texts)]


@given(texts=st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=5), words=st.sampled_from(KNOWN))
@settings(max_examples=150, deadline=None)
def test_the_ids_are_those_of_the_reference_for_any_unicode(
    tokenizers: dict[str, Tokenizer], texts: list[str], words: Words
) -> None:
    tokenizer = tokenizers[words]
    texts = [*texts, "".join(texts), TEXT.join(texts)]
    assert arrays(tokenizer, texts) == tokenizer.encode_plain_batch(texts)


def test_text_that_spells_the_end_token_stays_text(tokenizers: dict[str, Tokenizer]) -> None:
    tokenizer = tokenizers["gpt2"]
    (ids,) = arrays(tokenizer, ["a <|endoftext|> b"])
    assert tokenizer.eos_id not in ids and ids == tokenizer.encode("a <|endoftext|> b")
    with pytest.raises(TokenizerError, match="lone surrogate"):
        list(tokenizer.encode_plain_arrays(["a\ud800b"]))


def test_words_that_it_does_not_know_and_other_tokenizers_keep_the_reference(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    light = trained("light")
    assert not light.use_fast([TEXT]) and "does not know this tokenizer" in caplog.text
    assert arrays(light, [TEXT]) == [light.encode(TEXT)]
    assert not train(ByteSettings(), ()).use_fast([TEXT])


class Wrong:
    """An engine that is wrong for one letter."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer

    def encode(self, text: str) -> Any:
        ids = self.tokenizer.encode(text)
        return np.array(ids[1:] if "Щ" in text else ids, dtype=np.uint32)


def test_one_other_id_on_the_sample_refuses_it_and_one_later_ends_the_work(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tokenizer, reference = trained("gpt2"), trained("gpt2")
    monkeypatch.setattr(gigatoken.Tokenizer, "from_json", lambda definition: Wrong(reference))
    assert not tokenizer.use_fast(["fine", "Щ not"]) and "gives other ids for 'Щ not'" in caplog.text
    assert arrays(tokenizer, ["Щ not"]) == [reference.encode("Щ not")]
    assert tokenizer.use_fast(["fine"])
    monkeypatch.setattr(fast, "CHECKED_EVERY", 3)
    with pytest.raises(TokenizerError, match=r"begins with 'Щ 6") as problem:
        list(tokenizer.encode_plain_arrays([f"fine {n}" for n in range(6)] + ["Щ 6"]))
    assert "data.fast_tokenizer=never" in problem.value.fix


def test_a_preparation_gives_the_same_bytes_with_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    (tmp_path / "a.jsonl").write_text(
        "".join(f'{{"text": "document {n} it\'s {n * n} \\u00e4"}}\n' for n in range(500))
    )
    found = []
    for choice in ("never", "auto"):
        data = RowsSettings(
            path=str(tmp_path / "a.jsonl"),
            cache_dir=str(tmp_path / choice),
            workers=1,
            fast_tokenizer=choice,  # type: ignore[arg-type]
        )
        made = prepare(data, SubwordSettings(kind="bpe", vocab_size=300, words="gpt2"))
        found.append({file.name: file.read_bytes() for file in made.directory.iterdir() if file.is_file()})
    assert found[0] == found[1]
    assert "is used" not in caplog.text, "no reason against it was given"
