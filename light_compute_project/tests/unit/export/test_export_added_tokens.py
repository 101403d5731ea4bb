"""Tokens that a folder adds to its tokenizer file are built in or the folder is refused; ids are compared."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sentencepiece

from litgpt_core import tokenizers
from litgpt_core.core.errors import TokenizerError
from litgpt_core.export.huggingface.added_tokens import build_in_added_tokens, compare_ids
from litgpt_core.export.huggingface.importing import import_folder
from litgpt_core.export.huggingface.vocabulary import gather_tokenizer

TEXT = ["def main():", "    return [x ** 2 for x in range(10)]", "Größe naïve 日本語 🎉", "the quick brown fox"] * 40
PROBES = ["the quick  brown\nfox", "", "x ** 2", "日本語 語 🎉 \t", "Größe"]
SIZE = 330
Train = Callable[..., bytes]


def train(**changes: Any) -> bytes:
    """A small tokenizer.model as Llama's: BPE, bytes for unknown characters, a leading space."""
    model = io.BytesIO()
    options = {
        "model_type": "bpe",
        "vocab_size": SIZE,
        "byte_fallback": True,
        "normalization_rule_name": "identity",
        "remove_extra_whitespaces": False,
        "character_coverage": 1.0,
        "minloglevel": 2,
    }
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(TEXT), model_writer=model, **options | changes)
    return model.getvalue()


@pytest.fixture(scope="module")
def llama_like() -> bytes:
    return train()


def gather(folder: Path, target: Path, definition: bytes, **files: Any) -> tokenizers.Tokenizer:
    """A folder with `tokenizer.model` and JSON files; the tokenizer that an import makes of it."""
    folder.mkdir()
    target.mkdir()
    (folder / "tokenizer.model").write_bytes(definition)
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    gather_tokenizer(folder, target, model={})
    build_in_added_tokens(folder, target)
    return tokenizers.load(target)


ADDED = {"<|im_start|>": SIZE, "<|im_end|>": SIZE + 1}


@pytest.mark.parametrize("dummy_prefix", [True, False])
@pytest.mark.parametrize("listed", ["added_tokens", "tokenizer_config"])
def test_added_tokens_get_their_ids_and_the_others_keep_theirs(tmp_path: Path, dummy_prefix: bool, listed: str) -> None:
    definition = train(add_dummy_prefix=dummy_prefix)
    settings: dict[str, Any] = {"eos_token": "<|im_end|>", "tokenizer_class": "LlamaTokenizer"}
    decoder = {str(place): {"content": token, "special": True} for token, place in ADDED.items()}
    files: dict[str, Any] = {"tokenizer_config": settings, "added_tokens": ADDED}
    if listed == "tokenizer_config":
        files = {"tokenizer_config": settings | {"added_tokens_decoder": decoder}}
    loaded = gather(tmp_path / "in", tmp_path / "out", definition, **files)
    plain = sentencepiece.SentencePieceProcessor(model_proto=definition)
    assert (loaded.vocab_size, loaded.eos_id) == (SIZE + 2, SIZE + 1)
    for text in (*PROBES, *(line.strip() for line in TEXT[:4])):
        assert loaded.encode(text) == plain.encode(text), text
        assert loaded.decode(loaded.encode(text)) == plain.decode(plain.encode(text))
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "in")
    for text in ("<|im_start|>the\nquick<|im_end|> fox", " a", "  <|im_end|>x", *PROBES):
        if dummy_prefix:  # transformers adds the space whatever the model says
            assert loaded.encode(text) == theirs.encode(text, add_special_tokens=False), text
    assert loaded.encode("<|im_start|>the<|im_end|>").count(SIZE + 1) == 1
    assert not (tmp_path / "out" / "tokenizer.model").exists()


def test_an_end_token_inside_the_model_is_used_although_the_model_names_another(tmp_path: Path) -> None:
    definition = train(user_defined_symbols=["<|end|>"])
    plain = sentencepiece.SentencePieceProcessor(model_proto=definition)
    loaded = gather(tmp_path / "in", tmp_path / "out", definition, tokenizer_config={"eos_token": "<|end|>"})
    assert loaded.eos_id == plain.piece_to_id("<|end|>") != plain.eos_id()
    assert all(loaded.encode(text) == plain.encode(text) for text in PROBES)


def test_tokens_that_the_model_has_already_change_nothing(tmp_path: Path, llama_like: bytes) -> None:
    loaded = gather(
        tmp_path / "in",
        tmp_path / "out",
        llama_like,
        added_tokens={"<s>": 1, "</s>": 2, "<unk>": 0},
        special_tokens_map={"eos_token": {"content": "</s>"}},
    )
    assert (loaded.vocab_size, loaded.eos_id) == (SIZE, 2) and (tmp_path / "out" / "tokenizer.model").exists()


@pytest.mark.parametrize("added", [{"<a>": SIZE + 1}, {"<a>": 5}, {"<a>": SIZE, "<b>": SIZE + 2}])
def test_ids_with_gaps_are_refused_with_the_way_out(tmp_path: Path, llama_like: bytes, added: dict[str, int]) -> None:
    with pytest.raises(TokenizerError, match=r"tokenizer\.model lacks .* added token(.|\n)*save_pretrained") as caught:
        gather(tmp_path / "in", tmp_path / "out", llama_like, added_tokens=added)
    assert "'<a>'" in caught.value.given


@pytest.mark.parametrize(
    "changes", [{"model_type": "unigram", "vocab_size": 300}, {"normalization_rule_name": "nmt_nfkc"}]
)
def test_models_that_cannot_be_converted_are_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    definition = train(**changes)
    size = sentencepiece.SentencePieceProcessor(model_proto=definition).vocab_size()
    with pytest.raises(TokenizerError, match="lacks 1 added token"):
        gather(tmp_path / "in", tmp_path / "out", definition, added_tokens={"<|im_end|>": size})


def test_a_tokenizer_json_that_lacks_added_tokens_is_refused(make_folder: Any, tmp_path: Path) -> None:
    folder = make_folder("llama3").path
    (folder / "added_tokens.json").write_text('{"<|im_end|>": 300}', encoding="utf-8")
    with pytest.raises(TokenizerError, match=r"tokenizer\.json lacks 1 added token\(s\) of the folder: '<\|im_end\|>'"):
        import_folder(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_gpt2s_two_files_take_the_added_tokens(make_folder: Any, tmp_path: Path) -> None:
    folder = make_folder("gpt2").path
    definition = json.loads((folder / "tokenizer.json").read_text())["model"]
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink(missing_ok=True)
    (folder / "vocab.json").write_text(json.dumps(definition["vocab"]))
    merges = [" ".join(pair) if isinstance(pair, list) else pair for pair in definition["merges"]]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n")
    (folder / "added_tokens.json").write_text('{"<|im_end|>": 300, "<|im_start|>": 301}')
    loaded = tokenizers.load(import_folder(folder, tmp_path / "out").path)
    assert loaded.encode("a<|im_end|>") == [*loaded.encode("a"), 300] and loaded.vocab_size == 302


def test_an_end_id_that_the_tokenizer_lacks_is_refused(make_folder: Any, tmp_path: Path) -> None:
    folder = make_folder("llama3").path
    config = json.loads((folder / "config.json").read_text())
    (folder / "generation_config.json").unlink(missing_ok=True)
    (folder / "config.json").write_text(json.dumps(config | {"eos_token_id": 310}))
    with pytest.raises(TokenizerError, match="ends texts with id 310; the tokenizer has the ids 0 to 299"):
        import_folder(folder, tmp_path / "out")


@pytest.mark.parametrize(
    ("generation", "model", "said"),
    [
        ({}, {"eos_token_id": 0, "bos_token_id": 0}, []),
        ({"eos_token_id": [5, 0]}, {"eos_token_id": 7}, []),
        ({"eos_token_id": 5}, {}, ["eos_token_id 5, the tokenizer 0"]),
        ({}, {"eos_token_id": 7, "pad_token_id": 400}, ["eos_token_id 7", "pad_token_id 400"]),
        ({"eos_token_id": None}, {"eos_token_id": True, "bos_token_id": "x", "pad_token_id": [None]}, []),
    ],
)
def test_other_ids_are_compared_with_the_config(
    generation: dict[str, Any],
    model: dict[str, Any],
    said: list[str],
    tokenizer_dir: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    tokenizer = tokenizers.load(tokenizer_dir)
    (tmp_path / "generation_config.json").write_text(json.dumps(generation))
    with caplog.at_level(logging.WARNING):
        compare_ids(tmp_path, tokenizer, model=model)
    assert len(caplog.records) == len(said) and all(words in caplog.text for words in said)
