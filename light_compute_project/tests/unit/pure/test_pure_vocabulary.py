"""Ids without a library are the library's."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from litgpt_core import tokenizers
from litgpt_core.core.errors import TokenizerError
from litgpt_core.pure.vocabulary import read_vocabulary

SOURCE = Path(tokenizers.__file__).parent
TEXTS = [path.read_text(encoding="utf-8") for path in sorted(SOURCE.glob("*.py"))]
POOL = "abc def_(\n    ) 12 \t\r\n.,;!?éẞ語½²٣Ⅷ\u2581\u2585\xa0\u3000\x1c\x0b\u200b🙂'\""


def samples() -> list[str]:
    """200 texts: cuts of source code, and characters at random, of all classes that cut words."""
    rng = random.Random(1)
    cuts = [text[at : at + 200] for text, at in ((rng.choice(TEXTS), rng.randrange(3000)) for _ in range(100))]
    return [*cuts, *("".join(rng.choices(POOL, k=rng.randrange(60))) for _ in range(98)), "", "</s><|endoftext|><unk>"]


@pytest.mark.parametrize("name", ["char", "byte", "bpe", "bpe gpt2", "bpe llama3", "bpe qwen2", "sentencepiece"])
def test_ids_and_bytes_are_the_librarys(tmp_path: Path, name: str) -> None:
    kind, _, words = name.partition(" ")
    settings: object
    if kind in ("char", "byte"):
        settings = tokenizers.CharSettings() if kind == "char" else tokenizers.ByteSettings()
    else:
        settings = tokenizers.SubwordSettings(kind=kind, vocab_size=700, words=words or "light")  # type: ignore[arg-type]
    trained = tokenizers.train(settings, [*TEXTS, POOL] if kind == "char" else TEXTS)  # type: ignore[arg-type]
    trained.save(tmp_path)
    vocabulary = read_vocabulary(tmp_path)
    assert vocabulary.eos_id == trained.eos_id
    assert list(vocabulary.table) == [trained.token_bytes(number) for number in range(trained.vocab_size)]
    texts = [text for text in samples() if kind != "char" or set(text) <= {*"".join(TEXTS), *POOL}]
    assert len(texts) == 200
    for text in texts:
        ids = trained.encode(text)
        assert vocabulary.encode(text) == ids, text
        assert vocabulary.decode(ids) == trained.decode(ids)


def test_other_kinds_and_damage_are_named(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match="cannot be read"):
        read_vocabulary(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"kind": "unigram"}))
    with pytest.raises(TokenizerError, match="of kind unigram"):
        read_vocabulary(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"kind": "sentencepiece"}))
    (tmp_path / "tokenizer.model").write_bytes(b"\x0a\xff")
    with pytest.raises(TokenizerError, match="cannot be read"):
        read_vocabulary(tmp_path)


def test_characters_outside_and_nul_are_refused(tmp_path: Path) -> None:
    tokenizers.train(tokenizers.CharSettings(), ["abc"]).save(tmp_path)
    with pytest.raises(TokenizerError, match="'d' is not in the vocabulary"):
        read_vocabulary(tmp_path).encode("abcd")
    tokenizers.train(tokenizers.ByteSettings(), []).save(tmp_path)
    with pytest.raises(TokenizerError, match="NUL"):
        read_vocabulary(tmp_path).encode("a\0")
