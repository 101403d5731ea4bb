"""Conversations, and tokenizers of every kind: all of ours, and foreign ones that behave as downloaded models' do."""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import sentencepiece
from tokenizers import AddedToken, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as Processor

from litgpt_core.prompts import Message, style_named, style_names
from litgpt_core.tokenizers import ByteSettings, CharSettings, SubwordSettings, Tokenizer, load, train

TALK = (
    ("system", "Answer briefly."),
    ("user", "Where is Paris?\nTell me."),
    ("assistant", "In France. {user}"),
    ("user", " And Rome? "),
    ("assistant", "In Italy"),
    ("user", "Thank you!"),
    ("assistant", "You're welcome"),
)


@pytest.fixture(scope="session")
def talk() -> list[Message]:
    return [Message(role=role, content=content) for role, content in TALK]  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def tokenizer_of(talk: list[Message], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Tokenizer]:
    """`tokenizer_of(kind)`, trained once on everything that any style writes."""
    documents = [style_named(name).prompt(talk[:6]) for name in style_names()] + ["You're welcome"]
    documents.append(Path(argparse.__file__).read_text(encoding="utf-8"))
    made: dict[str, Tokenizer] = {}

    def get(kind: str) -> Tokenizer:
        if kind not in made:
            folder = tmp_path_factory.mktemp(kind)
            if kind == "char":
                made[kind] = train(CharSettings(), documents)
            elif kind == "byte":
                made[kind] = train(ByteSettings(), documents)
            elif kind == "foreign_json":
                made[kind] = foreign_json(folder)
            elif kind == "foreign_sentencepiece":
                made[kind] = foreign_sentencepiece(folder, documents)
            else:
                made[kind] = train(SubwordSettings(kind=kind, vocab_size=700), documents)  # type: ignore[arg-type]
        return made[kind]

    return get


def foreign_json(folder: Path) -> Tokenizer:
    """Bytes and chat markers, which are read out of text, as in a downloaded `tokenizer.json`."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    processor = Processor(models.BPE(vocab={delta: place for place, delta in enumerate(alphabet)}, merges=[]))
    processor.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    processor.decoder = decoders.ByteLevel()
    markers = ("<|endoftext|>", "<s>", "<|im_start|>", "<|im_end|>", "<|eot_id|>", "<end_of_turn>", "<|end|>")
    processor.add_special_tokens([AddedToken(marker, special=True) for marker in markers])
    processor.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "<|endoftext|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return load(folder)


def foreign_sentencepiece(folder: Path, documents: list[str]) -> Tokenizer:
    """As Llama 2's: a space is put before every text, and bos before every prompt."""
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(line for text in documents for line in text.splitlines()),
        model_writer=written,
        model_type="bpe",
        vocab_size=700,
        byte_fallback=True,
        add_dummy_prefix=True,
        remove_extra_whitespaces=False,
        normalization_rule_name="identity",
        hard_vocab_limit=False,
        minloglevel=2,
    )
    (folder / "tokenizer.model").write_bytes(written.getvalue())
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "LlamaTokenizer"}), encoding="utf-8")
    return load(folder)
