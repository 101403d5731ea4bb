"""AutoTokenizer gives the ids that ours gives, on exported folders; ours gives AutoTokenizer's, on imported ones."""

from __future__ import annotations

import inspect
import json
import random
from pathlib import Path
from typing import Any

import pytest

from litgpt_core import tokenizers
from litgpt_core.core.errors import TokenizerError
from litgpt_core.export.huggingface.exporting import export_directory
from litgpt_core.export.huggingface.importing import import_folder
from litgpt_core.model import config as some_source
from litgpt_core.model import rope as other_source
from litgpt_core.tokenizers.settings import SUBWORD_KINDS

transformers = pytest.importorskip("transformers")

SOURCE = inspect.getsource(some_source) + "\n" + inspect.getsource(other_source)
STRANGE = "Größe: naïve 日本語 🎉  \t x\n\n    y  = 1\r\n… «»  ¼\u200b end "
SMALL = {"n_layer": 1, "n_head": 2, "n_embd": 16, "parallel_residual": False, "rotary_percentage": 1.0}


def texts(*, seed: int = 0) -> list[str]:
    """Source code, strange characters, and random mixtures of what both hold."""
    rng = random.Random(seed)
    alphabet = sorted(set(SOURCE + STRANGE))
    cuts = [SOURCE[start : start + 700] for start in range(0, len(SOURCE), 700)]
    return [*cuts, STRANGE, "", " ", "  a", *("".join(rng.choices(alphabet, k=60)) for _ in range(60))]


def train(kind: str, folder: Path) -> tokenizers.Tokenizer:
    settings: Any = {"char": tokenizers.CharSettings(), "byte": tokenizers.ByteSettings()}.get(kind)
    settings = settings or tokenizers.SubwordSettings(kind=kind, vocab_size=900)
    trained = tokenizers.train(settings, [SOURCE, STRANGE])
    trained.save(folder)
    return trained


@pytest.mark.parametrize("kind", ["char", "byte", *SUBWORD_KINDS])
def test_every_kind_gives_the_same_ids_and_text_in_transformers(kind: str, save_ours: Any, tmp_path: Path) -> None:
    ours = train(kind, tmp_path / "tokenizer")
    directory = save_ours(tokenizer=tmp_path / "tokenizer", **{**SMALL, "vocab_size": ours.vocab_size})
    out = export_directory(directory, tmp_path / "out").path
    there = transformers.AutoTokenizer.from_pretrained(out)
    for text in texts():
        ids = ours.encode(text)
        assert there.encode(text) == ids, text
        assert there.decode(ids) == text
    config = json.loads((out / "config.json").read_text())
    assert (config["eos_token_id"], config["bos_token_id"]) == (ours.eos_id, ours.bos_id)
    if kind != "byte":
        assert there.eos_token_id == ours.eos_id

    back = tokenizers.load(import_folder(out, tmp_path / "back").path)
    assert (back.kind, back.vocab_size, back.eos_id, back.bos_id) == (kind, ours.vocab_size, ours.eos_id, ours.bos_id)
    assert back.fingerprint() == ours.fingerprint()


def test_the_byte_tokenizers_end_token_does_not_hide_a_letter(save_ours: Any, tmp_path: Path) -> None:
    train("byte", tmp_path / "tokenizer")
    directory = save_ours(tokenizer=tmp_path / "tokenizer", **{**SMALL, "vocab_size": 256})
    there = transformers.AutoTokenizer.from_pretrained(export_directory(directory, tmp_path / "out").path)
    assert there.encode("Ā") == list("Ā".encode())


def test_a_character_outside_the_vocabulary_is_an_error_in_transformers_too(save_ours: Any, tmp_path: Path) -> None:
    ours = train("char", tmp_path / "tokenizer")
    directory = save_ours(tokenizer=tmp_path / "tokenizer", **{**SMALL, "vocab_size": ours.vocab_size})
    there = transformers.AutoTokenizer.from_pretrained(export_directory(directory, tmp_path / "out").path)
    with pytest.raises(Exception, match="UNK"):
        there.encode("\u4e8c")


# --- foreign tokenizers, in and out


@pytest.fixture
def gpt2_pieces(make_folder: Any) -> Path:
    """A GPT-2 folder whose tokenizer is vocab.json and merges.txt alone, as in 2019."""
    folder = make_folder("gpt2").path
    definition = json.loads((folder / "tokenizer.json").read_text())["model"]
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        (folder / name).unlink(missing_ok=True)
    (folder / "vocab.json").write_text(json.dumps(definition["vocab"]))
    merges = [" ".join(pair) if isinstance(pair, list) else pair for pair in definition["merges"]]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n")
    return folder


def test_gpt2s_two_files_become_one_with_the_same_ids(gpt2_pieces: Path, tmp_path: Path) -> None:
    there = transformers.AutoTokenizer.from_pretrained(gpt2_pieces)
    ours = import_folder(gpt2_pieces, tmp_path / "ours").path
    loaded = tokenizers.load(ours)
    assert (loaded.kind, loaded.vocab_size) == ("foreign", 300)
    assert loaded.eos_id == 0, "of config.json: no other file names one"
    for text in texts():
        assert loaded.encode(text) == there.encode(text), text
    assert loaded.encode("a<|endoftext|>b")[1] == there.convert_tokens_to_ids("<|endoftext|>")

    out = export_directory(ours, tmp_path / "out").path
    again = transformers.AutoTokenizer.from_pretrained(out)
    assert all(again.encode(text) == there.encode(text) for text in texts())


def test_two_files_of_another_tokenizer_are_refused(gpt2_pieces: Path, tmp_path: Path) -> None:
    (gpt2_pieces / "tokenizer_config.json").write_text('{"tokenizer_class": "Qwen2Tokenizer"}')
    with pytest.raises(TokenizerError, match="Qwen2Tokenizer") as caught:
        import_folder(gpt2_pieces, tmp_path / "ours")
    assert "save_pretrained" in caught.value.fix
    (gpt2_pieces / "tokenizer_config.json").unlink()
    (gpt2_pieces / "merges.txt").write_text("#version: 0.2\nthis is no merge\n")
    with pytest.raises(TokenizerError, match="cannot be read"):
        import_folder(gpt2_pieces, tmp_path / "ours")
    (gpt2_pieces / "merges.txt").unlink()
    with pytest.raises(TokenizerError, match="holds no tokenizer"):
        import_folder(gpt2_pieces, tmp_path / "ours")
    assert not (tmp_path / "ours").exists()


def test_a_tokenizer_saved_by_transformers_keeps_its_ids_and_special_tokens(make_folder: Any, tmp_path: Path) -> None:
    folder = make_folder("llama3").path
    definition = str(folder / "tokenizer.json")
    wrapped = transformers.PreTrainedTokenizerFast(tokenizer_file=definition, eos_token="<|endoftext|>", bos_token="!")
    wrapped.chat_template = "{{ messages }}"
    (folder / "tokenizer_config.json").unlink()
    wrapped.save_pretrained(folder)
    there = transformers.AutoTokenizer.from_pretrained(folder)
    ours = import_folder(folder, tmp_path / "ours").path
    loaded = tokenizers.load(ours)
    assert (loaded.eos_id, loaded.bos_id) == (there.eos_token_id, there.bos_token_id)
    assert all(loaded.encode(text) == there.encode(text) for text in texts())
    assert (ours / "chat_template.jinja").read_text() == "{{ messages }}"
    again = transformers.AutoTokenizer.from_pretrained(export_directory(ours, tmp_path / "out").path)
    assert all(again.encode(text) == there.encode(text) for text in texts())
    assert again.chat_template == "{{ messages }}"


def test_a_broken_tokenizer_is_named(make_folder: Any, tmp_path: Path) -> None:
    folder = make_folder("llama3").path
    text = (folder / "tokenizer.json").read_text()
    (folder / "tokenizer.json").write_text(text[: len(text) // 2])
    with pytest.raises(TokenizerError, match=r"tokenizer\.json cannot be read"):
        import_folder(folder, tmp_path / "ours")
    assert not (tmp_path / "ours").exists()


def test_more_ids_than_rows_is_a_warning(make_folder: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = make_folder("llama3", settings={"vocab_size": 280}).path
    made = import_folder(folder, tmp_path / "ours")
    assert (made.config.vocab_size, made.config.padded_vocab_size) == (280, 280)
    assert "the tokenizer has 300 ids, the embedding 280 rows" in caplog.text


def test_the_padding_of_the_vocabulary_is_the_folders(make_folder: Any, tmp_path: Path) -> None:
    made = import_folder(make_folder("llama3").path, tmp_path / "ours")
    assert (made.config.vocab_size, made.config.padded_vocab_size) == (300, 320)
