"""Train SentencePiece BPE for source code and prose.

The result is a plain `tokenizer.model` that needs none of this to be used.

The library's trainer allows a space only at the start of a piece, so "newline + indentation" can never be one. Here
every space of an indentation (and of any run of two or more) is replaced by a private-use character for training and
restored in the finished file: both are three bytes long, so the file's structure does not change. Bytes per token with
4096 pieces from 3 MB of networkx and sympy, on unseen networkx / lightning sources:

    line by line, pieces within words   2.90
    whole documents                     3.09 / 2.93
    pieces may span words               3.35 / 3.01
    ... and letters, punctuation        3.68 / 3.14
    ... and newline + indentation       3.81 / 3.21   this file
    ... but within words                3.64 / 3.16
    space at the end, not the start     3.93 / 3.25   not taken: a prompt such as "Once upon a" then ends inside a token
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator
from typing import Any

from sentencepiece import SentencePieceTrainer

from litgpt_core.core.errors import TokenizerError
from litgpt_core.tokenizers.sampling import sample_documents
from litgpt_core.tokenizers.sentencepiece_bpe import SPACE_MARK, SentencePieceTokenizer
from litgpt_core.tokenizers.settings import SubwordSettings

_STAND_IN = "\ue000"
_RESERVED = re.compile(
    "[\u2581\u2585\ue000]+"
)  # the library skips any text with U+2585; the other two would be misread
_INDENTATION = re.compile(r"(?<=\n) +|  +")

_FIXED_PIECES = 3 + 256
"""unk, bos, eos and the byte tokens."""

_FIXED: dict[str, Any] = {
    "model_type": "bpe",
    "byte_fallback": True,
    "normalization_rule_name": "identity",
    "add_dummy_prefix": False,
    "remove_extra_whitespaces": False,
    "allow_whitespace_only_pieces": True,
    "split_by_whitespace": False,
    "split_by_unicode_script": False,
    "split_digits": True,
    "max_sentencepiece_length": 24,
    "character_coverage": 0.9995,
    "max_sentence_length": 1 << 24,
    "num_threads": 2,  # a constant: the number is stored in the file, whose hash names caches
    "minloglevel": 2,
}


def train_sentencepiece(settings: SubwordSettings, documents: Iterable[str]) -> SentencePieceTokenizer:
    """Train on a seeded sample of `documents`; the same documents and settings give the same file, bit for bit."""
    if settings.vocab_size <= _FIXED_PIECES:
        raise _too_small(settings.vocab_size, least=_FIXED_PIECES)
    sample = sample_documents(documents, max_bytes=settings.max_train_bytes, seed=settings.seed)
    written = io.BytesIO()
    try:
        SentencePieceTrainer.train(
            sentence_iterator=_sentences(sample), model_writer=written, vocab_size=settings.vocab_size, **_FIXED
        )
    except RuntimeError as error:
        raise _explained(str(error), settings.vocab_size) from None
    return SentencePieceTokenizer(_restore_spaces(written.getvalue()))


def _sentences(sample: list[str]) -> Iterator[str]:
    for document in sample:
        for section in _RESERVED.split(document):
            if section:
                yield _INDENTATION.sub(lambda run: _STAND_IN * len(run.group()), section)


def _explained(message: str, size: int) -> TokenizerError:
    """The library's error about a vocabulary size, with a size that works."""
    if most := re.search(r"Vocabulary size too high .*?<= (\d+)", message):
        return TokenizerError(
            f"The training text supports only {most[1]} sentencepiece pieces, but tokenizer.vocab_size={size}.",
            needed="more text or a smaller vocabulary",
            fix=f"tokenizer.vocab_size={most[1]}",
        )
    least = re.search(r"smaller than required_chars\. \d+ vs (\d+)", message)
    if least:
        return _too_small(size, least=int(least[1]))
    if "sentences_.empty()" in message:
        return TokenizerError(
            "The training documents contain no text that sentencepiece can learn from.", needed="ordinary text"
        )
    return TokenizerError(f"sentencepiece could not train: {message}")


def _too_small(size: int, *, least: int) -> TokenizerError:
    return TokenizerError(
        f"tokenizer.vocab_size={size} is too small for sentencepiece.",
        needed=f"more than {least}: special tokens, 256 byte values and the text's characters come first",
        fix=f"tokenizer.vocab_size={max(4096, 2 * least)}",
    )


def _restore_spaces(model: bytes) -> bytes:
    """The model file with every private-use character inside a piece replaced by the library's space mark.

    A piece whose new name already exists keeps its old one: it then represents the private-use character itself.
    """
    stand_in, mark = _STAND_IN.encode(), SPACE_MARK.encode()
    spans = list(_piece_spans(model))
    names = {model[start:stop] for start, stop in spans}
    changed = bytearray(model)
    for start, stop in spans:
        name = model[start:stop].replace(stand_in, mark)
        if name not in names:
            changed[start:stop] = name
            names.add(name)
    return bytes(changed)


def _piece_spans(model: bytes) -> Iterator[tuple[int, int]]:
    """Start and end of each piece's name: field 1 of each field 1 of the ModelProto.

    Protobuf's wire format; every top field is a message.
    """
    at = 0
    while at < len(model):
        tag, at = _varint(model, at)
        length, body = _varint(model, at)
        at = body + length
        if tag == 0x0A:
            inner_tag, inner = _varint(model, body)
            assert inner_tag == 0x0A, "a SentencePiece message starts with its piece"
            name_length, start = _varint(model, inner)
            yield start, start + name_length


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """The number at `at` and the position after it."""
    value = shift = 0
    while True:
        byte = data[at]
        value, shift, at = value | (byte & 0x7F) << shift, shift + 7, at + 1
        if byte < 0x80:
            return value, at
