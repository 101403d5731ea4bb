"""A hostile tokenizer is one TokenizerError, in little time: growing replacements, panics, huge ids, damaged files."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from litgpt_core.core.errors import TokenizerError
from litgpt_core.tokenizers import load
from litgpt_core.tokenizers.hostile import MAX_GROWTH, panics_as_errors, refuse_growth

WORDS: dict[str, int] = {"a": 0, "b": 1, "</s>": 2}


def write(folder: Path, **parts: Any) -> Path:
    model = {"type": "WordLevel", "vocab": parts.pop("vocab", WORDS), "unk_token": "a"}
    content = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None}
    content |= {"pre_tokenizer": None, "post_processor": None, "decoder": None, "model": model}
    (folder / "tokenizer.json").write_text(json.dumps(content | parts))
    (folder / "tokenizer_config.json").write_text('{"eos_token": "</s>"}')
    return folder


def replace(old: object, new: str) -> dict[str, object]:
    return {"type": "Replace", "pattern": old, "content": new}


GROWING = [
    {"type": "Sequence", "normalizers": [replace({"String": "a"}, "a" * 100)] * 5},
    {"type": "Sequence", "normalizers": [{"type": "Sequence", "normalizers": [replace({"Regex": "a?"}, "aaa")] * 9}]},
    replace({"String": ""}, "a" * 100),
    {"type": "Prepend", "prepend": "a" * 20_000},
]


@pytest.mark.parametrize("normalizer", GROWING)
def test_replacements_that_multiply_a_text_are_refused(tmp_path: Path, normalizer: dict[str, object]) -> None:
    start = time.process_time()
    with pytest.raises(TokenizerError, match=f"more than {MAX_GROWTH} times longer"):
        load(write(tmp_path, normalizer=normalizer))
    assert time.process_time() - start < 2


def test_a_decoder_that_multiplies_is_refused_too(tmp_path: Path) -> None:
    decoder = {"type": "Sequence", "decoders": [replace({"String": "a"}, "a" * 100)] * 5 + [{"type": "Fuse"}]}
    with pytest.raises(TokenizerError, match="The decoder"):
        load(write(tmp_path, decoder=decoder))


def test_usual_replacements_pass() -> None:
    refuse_growth({"normalizer": {"type": "Sequence", "normalizers": [replace({"String": " "}, "\u2581")] * 9}})
    refuse_growth({"normalizer": replace({"Regex": "\\s+"}, " "), "decoder": replace({"String": "</w>"}, " ")})
    refuse_growth({"normalizer": {"type": "NFC"}})
    refuse_growth([])


def test_an_expression_that_never_ends_is_an_error_and_no_panic(tmp_path: Path) -> None:
    split = {"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated", "invert": False}
    tokenizer = load(write(tmp_path, pre_tokenizer=split))
    with pytest.raises(TokenizerError, match="library failed"):
        tokenizer.encode("a" * 40 + "b")
    with pytest.raises(KeyboardInterrupt), panics_as_errors():
        raise KeyboardInterrupt


@pytest.mark.parametrize("largest", [2**32 - 1, 200_000])
def test_an_id_far_beyond_the_vocabulary_is_refused(tmp_path: Path, largest: int) -> None:
    with pytest.raises(TokenizerError, match=f"3 tokens have ids up to {largest:,}"):
        load(write(tmp_path, vocab={**WORDS, "b": largest}))
    assert load(write(tmp_path, vocab={**WORDS, "b": 1000})).vocab_size == 1001


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "generation_config.json"])
@pytest.mark.parametrize("data", [b"[" * 100_000, b"\xff\xfe", b"", b'{"model": 5}', b"nul\x00l", b"1" * 5000])
def test_damaged_files_are_one_error(tmp_path: Path, name: str, data: bytes) -> None:
    write(tmp_path)
    (tmp_path / name).write_bytes(data)
    for kind in (None, "byte", "char", "bpe", "foreign", "unknown"):
        if name != "tokenizer_config.json" and kind is not None:
            (tmp_path / "tokenizer_config.json").write_text(json.dumps({"kind": kind, "eos_token": "</s>"}))
        try:
            load(tmp_path)
        except TokenizerError as problem:
            assert len(str(problem)) < 1000
        else:
            assert name == "generation_config.json" and kind in (None, "foreign", "unknown")
