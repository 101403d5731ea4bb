"""A saved directory loads to the same tokenizer; foreign directories follow LitGPT's rules; damage is named."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, decoders, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as Processor

from litgpt_core.core.errors import TokenizerError
from litgpt_core.tokenizers import load
from litgpt_core.tokenizers.base import Tokenizer
from litgpt_core.tokenizers.settings import KINDS

TEXT = "def f(x):\n    return x  # done\n"


@pytest.mark.parametrize("kind", KINDS)
def test_save_and_load_keep_everything(trained: dict[str, Tokenizer], tmp_path: Path, kind: str) -> None:
    before = trained[kind]
    before.save(tmp_path / "new" / "folder")
    after = load(tmp_path / "new" / "folder")
    assert type(after) is type(before)
    for name in ("kind", "vocab_size", "bos_id", "eos_id", "use_bos"):
        assert getattr(after, name) == getattr(before, name)
    assert after.fingerprint() == before.fingerprint()
    assert after.encode(TEXT) == before.encode(TEXT)
    assert [after.token_bytes(i) for i in range(after.vocab_size)] == [
        before.token_bytes(i) for i in range(before.vocab_size)
    ]
    after.save(tmp_path / "again")
    for file in (tmp_path / "new" / "folder").iterdir():
        assert (tmp_path / "again" / file.name).read_bytes() == file.read_bytes()


@pytest.mark.parametrize("kind", KINDS)
def test_the_files_are_litgpts(trained: dict[str, Tokenizer], tmp_path: Path, kind: str) -> None:
    trained[kind].save(tmp_path)
    defining = "tokenizer.model" if kind == "sentencepiece" else "tokenizer.json"
    assert sorted(file.name for file in tmp_path.iterdir()) == [defining, "tokenizer_config.json"]
    config = json.loads((tmp_path / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert config["kind"] == kind and config["add_bos_token"] is False
    assert "Llama" not in config["tokenizer_class"]


def test_saving_over_another_format_leaves_one_tokenizer(trained: dict[str, Tokenizer], tmp_path: Path) -> None:
    trained["bpe"].save(tmp_path)
    trained["sentencepiece"].save(tmp_path)
    assert load(tmp_path).fingerprint() == trained["sentencepiece"].fingerprint()
    trained["byte"].save(tmp_path)
    assert load(tmp_path).kind == "byte"


def test_different_tokenizers_have_different_fingerprints(trained: dict[str, Tokenizer]) -> None:
    assert len({tokenizer.fingerprint() for tokenizer in trained.values()}) == len(KINDS)


def test_missing_things_are_named(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match="is not a directory"):
        load(tmp_path / "absent")
    with pytest.raises(TokenizerError, match=r"contains no tokenizer(.|\n)*tokenizer\.json or tokenizer\.model"):
        load(tmp_path)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("damage", [b"", b"garbage", b"{}", b"[]", "half"])
def test_a_damaged_defining_file_is_named(
    trained: dict[str, Tokenizer], tmp_path: Path, kind: str, damage: bytes | str
) -> None:
    trained[kind].save(tmp_path)
    file = next(file for file in tmp_path.iterdir() if file.name in ("tokenizer.json", "tokenizer.model"))
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2] if isinstance(damage, str) else damage)
    with pytest.raises(TokenizerError, match=file.name.replace(".", r"\.")):
        load(tmp_path)


def test_a_damaged_config_is_named(trained: dict[str, Tokenizer], tmp_path: Path) -> None:
    trained["bpe"].save(tmp_path)
    for content in ("{", "[1]"):
        (tmp_path / "tokenizer_config.json").write_text(content, encoding="utf-8")
        with pytest.raises(TokenizerError, match=r"tokenizer_config\.json"):
            load(tmp_path)


@pytest.mark.parametrize(("claimed", "real"), [("byte", "bpe"), ("char", "bpe"), ("char", "byte")])
def test_a_config_that_claims_another_kind_is_refused(
    trained: dict[str, Tokenizer], tmp_path: Path, claimed: str, real: str
) -> None:
    trained[real].save(tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text(encoding="utf-8"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config | {"kind": claimed}), encoding="utf-8")
    with pytest.raises(TokenizerError, match=f"has kind {claimed}"):
        load(tmp_path)


def write_foreign(
    directory: Path, *, decoder: Any, config: dict[str, Any] | None, generation: str | None = None
) -> None:
    """A byte-level BPE as other projects publish it: bos, eos and a chat marker as added special tokens."""
    processor = Processor(models.BPE())
    processor.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    processor.decoder = decoder
    trainer = trainers.BpeTrainer(
        vocab_size=300, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False, special_tokens=[]
    )
    processor.train_from_iterator(["hello world, hello there, other words"], trainer=trainer)
    processor.add_special_tokens([AddedToken(token, special=True) for token in ("<bos>", "<eos>", "<|user|>")])
    processor.add_tokens([AddedToken("plain_added", special=False)])
    directory.mkdir(parents=True, exist_ok=True)
    processor.save(str(directory / "tokenizer.json"))
    if config is not None:
        (directory / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    if generation is not None:
        (directory / "generation_config.json").write_text(generation, encoding="utf-8")


CONFIG = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "bos_token": {"content": "<bos>"},
    "eos_token": "<eos>",
    "extra_key": [1],
}


def test_a_foreign_directory_follows_litgpts_rules(tmp_path: Path) -> None:
    write_foreign(tmp_path / "Llama-3-tiny", decoder=decoders.ByteLevel(), config=CONFIG)
    tokenizer = load(tmp_path / "Llama-3-tiny")
    assert tokenizer.kind == "foreign" and tokenizer.use_bos
    processor = Processor.from_file(str(tmp_path / "Llama-3-tiny" / "tokenizer.json"))
    assert tokenizer.bos_id == processor.token_to_id("<bos>") and tokenizer.eos_id == processor.token_to_id("<eos>")
    assert tokenizer.vocab_size == processor.get_vocab_size(with_added_tokens=True)
    ids = tokenizer.encode("<|user|>hello plain_added wörld")
    assert ids[0] == processor.token_to_id("<|user|>")
    assert tokenizer.decode(ids) == "hello plain_added wörld"
    assert b"".join(tokenizer.token_bytes(i) or b"" for i in ids) == "hello plain_added wörld".encode()


def test_a_foreign_directory_keeps_its_config_when_saved(tmp_path: Path) -> None:
    write_foreign(tmp_path / "a", decoder=decoders.ByteLevel(), config=CONFIG)
    tokenizer = load(tmp_path / "a")
    tokenizer.save(tmp_path / "b")
    again = load(tmp_path / "b")
    assert again.fingerprint() == tokenizer.fingerprint() and again.use_bos == tokenizer.use_bos
    assert json.loads((tmp_path / "b" / "tokenizer_config.json").read_text(encoding="utf-8"))["extra_key"] == [1]


def test_generation_config_fills_in_even_when_it_is_not_valid_json(tmp_path: Path) -> None:
    processor_config = {"tokenizer_class": "X"}
    broken = '{"bos_token_id": 1, "eos_token_id": [2, 3],, }'
    write_foreign(tmp_path, decoder=decoders.ByteLevel(), config=processor_config, generation=broken)
    tokenizer = load(tmp_path)
    assert (tokenizer.bos_id, tokenizer.eos_id) == (1, 2)


@pytest.mark.parametrize("config", [None, {"tokenizer_class": "X"}, {"tokenizer_class": "X", "eos_token": "absent"}])
def test_a_foreign_directory_without_an_end_token_is_refused(tmp_path: Path, config: dict[str, Any] | None) -> None:
    write_foreign(tmp_path, decoder=decoders.ByteLevel(), config=config)
    with pytest.raises(TokenizerError, match="eos_token"):
        load(tmp_path)


@pytest.mark.parametrize("decoder", [decoders.WordPiece(), decoders.Metaspace(), decoders.BPEDecoder(), None])
def test_decoders_that_look_at_neighbours_have_no_token_bytes(tmp_path: Path, decoder: Any) -> None:
    write_foreign(tmp_path, decoder=decoder, config=CONFIG) if decoder else write_without_decoder(tmp_path)
    tokenizer = load(tmp_path)
    assert tokenizer.token_bytes(5) is None
    processor = Processor.from_file(str(tmp_path / "tokenizer.json"))
    ids = processor.encode("hello world").ids
    assert tokenizer.decode([*ids, tokenizer.eos_id]) == processor.decode(ids)


def write_without_decoder(directory: Path) -> None:
    """The same with `"decoder": null`."""
    write_foreign(directory, decoder=decoders.ByteLevel(), config=CONFIG)
    content = json.loads((directory / "tokenizer.json").read_text(encoding="utf-8"))
    (directory / "tokenizer.json").write_text(json.dumps(content | {"decoder": None}), encoding="utf-8")


@pytest.mark.parametrize("dummy_prefix", [True, False])
def test_a_foreign_sentencepiece_model_decodes_as_its_library(tmp_path: Path, dummy_prefix: bool) -> None:
    from sentencepiece import SentencePieceProcessor, SentencePieceTrainer

    written = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter(["hello world and hello there again"] * 20),
        model_writer=written,
        vocab_size=290,
        model_type="bpe",
        byte_fallback=True,
        add_dummy_prefix=dummy_prefix,
        remove_extra_whitespaces=dummy_prefix,
        minloglevel=2,
    )
    (tmp_path / "tokenizer.model").write_bytes(written.getvalue())
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "LlamaTokenizer"}', encoding="utf-8")
    tokenizer, processor = load(tmp_path), SentencePieceProcessor(model_proto=written.getvalue())
    assert tokenizer.use_bos and (tokenizer.bos_id, tokenizer.eos_id) == (1, 2)
    ids = tokenizer.encode("hello wörld")
    assert ids == processor.encode("hello wörld")
    assert tokenizer.decode([1, *ids, 2]) == "hello wörld"
    assert (tokenizer.token_bytes(ids[0]) is None) == dummy_prefix
