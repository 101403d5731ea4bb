"""Train bpe, wordpiece and unigram with the Hugging Face `tokenizers` library.

All three see bytes, so all three are lossless.

Text is cut into words by one regular expression, words become bytes in printable characters (byte_alphabet.py), and
each trainer starts from all 256 of them: whatever the text, no unknown token is needed. End of document is the only
special token.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, trainers

from litgpt_core.core.errors import TokenizerError
from litgpt_core.tokenizers.byte_alphabet import BYTE_TO_CHARACTER
from litgpt_core.tokenizers.huggingface import EOS_TOKEN, HuggingFaceTokenizer
from litgpt_core.tokenizers.sampling import sample_documents
from litgpt_core.tokenizers.settings import UNIGRAM_MAX_TRAIN_BYTES, SubwordSettings
from litgpt_core.tokenizers.words import PRE_TOKENIZERS, WHOLE_WORDS, Words

logger = logging.getLogger(__name__)

TIE = "\u2040"
"""Marks a WordPiece token that continues a word.

Unlike the usual "##" it represents no byte, so that text cannot imitate it.
"""

LEAST_SIZE = {"bpe": 257, "wordpiece": 513, "unigram": 257}
"""The byte values (twice for wordpiece: word-initial and continuing) and the end token."""


def train_huggingface(settings: SubwordSettings, documents: Iterable[str]) -> HuggingFaceTokenizer:
    """Train on a seeded sample of `documents`.

    Gives exactly `settings.vocab_size` ids, or a TokenizerError that names a size that fits.
    """
    kind, size = settings.kind, settings.vocab_size
    least = LEAST_SIZE[kind]
    if size < least:
        raise TokenizerError(
            f"tokenizer.vocab_size={size} is too small for {kind}.",
            needed=f"at least {least}: byte values and an end token come before any merged token",
            fix=f"tokenizer.vocab_size={max(4096, least)}",
        )
    ceiling = UNIGRAM_MAX_TRAIN_BYTES if kind == "unigram" else settings.max_train_bytes
    max_bytes = min(ceiling, settings.max_train_bytes)
    sample = sample_documents(documents, max_bytes=max_bytes, seed=settings.seed)
    if max_bytes < settings.max_train_bytes and sum(map(len, sample)) > 0.9 * max_bytes:
        logger.warning(
            "unigram trains on %d bytes, not tokenizer.max_train_bytes=%d", max_bytes, settings.max_train_bytes
        )
    processor, trainer = _untrained(kind, size, words=settings.words)
    processor.train_from_iterator(sample, trainer=trainer)
    content = json.loads(processor.to_str())
    content["added_tokens"] = [token for token in content["added_tokens"] if token["content"] == EOS_TOKEN]
    if settings.words in WHOLE_WORDS:
        content["model"]["ignore_merges"] = True
    found = len(content["model"]["vocab"])
    if found < size:
        raise TokenizerError(
            f"The training text supports only {found} {kind} tokens, but tokenizer.vocab_size={size}.",
            needed="more text or a smaller vocabulary",
            fix=f"tokenizer.vocab_size={found}",
        )
    return HuggingFaceTokenizer((json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode("utf-8"), kind=kind)


def _untrained(kind: str, size: int, *, words: Words) -> tuple[Tokenizer, Any]:
    """The empty processor and the trainer of `kind` (the library's trainers share no base type)."""
    end = AddedToken(EOS_TOKEN, special=True, normalized=False)
    common: dict[str, Any] = {
        "vocab_size": size,
        "special_tokens": [end],
        "initial_alphabet": BYTE_TO_CHARACTER,
        "show_progress": False,
    }
    decoder: Any = decoders.ByteLevel()
    model: Any
    trainer: Any
    if kind == "bpe":
        model, trainer = models.BPE(), trainers.BpeTrainer(**common)
    elif kind == "unigram":
        model, trainer = models.Unigram(), trainers.UnigramTrainer(unk_token=None, **common)
    else:
        model = models.WordPiece(unk_token=EOS_TOKEN, continuing_subword_prefix=TIE, max_input_chars_per_word=100_000)
        # Continuing bytes go in as special tokens and are unmarked after training: all 256 get ids, in fixed order, and
        # no word turns into an unknown token. By default the trainer takes those it encounters, in hash order.
        common["special_tokens"] = [end, *(TIE + character for character in BYTE_TO_CHARACTER)]
        trainer = trainers.WordPieceTrainer(continuing_subword_prefix=TIE, **common)
        decoder = decoders.Sequence([decoders.Replace(TIE, ""), decoders.ByteLevel()])
    processor = Tokenizer(model)
    frame = json.loads(processor.to_str())
    processor = Tokenizer.from_str(json.dumps({**frame, "pre_tokenizer": PRE_TOKENIZERS[words]}))
    processor.decoder = decoder
    return processor, trainer
