"""Corpus -> tokenizer -> token shards: what is written into a prepared folder of text.

    train.bin val.bin        token ids, raw little-endian
    tokenizer/               the files that LitGPT loads
    meta.json                what all of it was made from, with hashes; docs/data.md explains each entry

Not here: reading sources (`sources`), the split (`split`), finding and publishing folders (`prepared_folder`), batches
(`dataset`).
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from litgpt_core.core.errors import DataError, TokenizerError
from litgpt_core.data.document import Corpus, Document
from litgpt_core.data.ngram import ReferenceLosses, reference_losses
from litgpt_core.data.prepared import FORMAT_VERSION
from litgpt_core.data.prepared_folder import (
    content_settings,
    find_or_make,
    fingerprint_of,
    save_tokenizer,
    tokenizer_facts,
    tokenizer_identity,
    write_meta,
)
from litgpt_core.data.settings import CorpusSettings
from litgpt_core.data.shards import ShardFacts, token_dtype, write_shard
from litgpt_core.data.sources import read_corpus
from litgpt_core.data.split import Split, split_corpus
from litgpt_core.data.unchanged import find_unchanged, inputs_state, remember
from litgpt_core.tokenizers.base import Tokenizer
from litgpt_core.tokenizers.registry import train as train_tokenizer
from litgpt_core.tokenizers.settings import PretrainedSettings, TokenizerSettings

logger = logging.getLogger(__name__)


def prepare_text(data: CorpusSettings, tokenizer: TokenizerSettings) -> Path:
    """The prepared folder for these settings, made if it does not exist.

    Files whose size and times are those of the last reading are not read again (`unchanged`), unless
    `data.verify=full`. Otherwise the corpus is read and split, so that a changed file is noticed.

    Raises:
        DataError: The corpus cannot be read or split, or the folder cannot be written.
        TokenizerError: The tokenizer cannot be trained on this text, or cannot represent the validation text.
    """
    began = time.time()
    state = inputs_state(data)
    if state and getattr(data, "verify", "full") == "stat":
        found = find_unchanged(data, tokenizer, state)
        if found is not None:
            return found
    corpus = read_corpus(data)
    split = split_corpus(corpus, data)
    fingerprint = _fingerprint(data, tokenizer, corpus=corpus, split=split)

    def build(work: Path) -> None:
        _build(work, data, tokenizer, corpus=corpus, split=split, fingerprint=fingerprint)

    directory = find_or_make(data, fingerprint=fingerprint, build=build)
    if state:
        remember(data, tokenizer, state, began=began, fingerprint=fingerprint)
    return directory


def _fingerprint(data: CorpusSettings, tokenizer: TokenizerSettings, *, corpus: Corpus, split: Split) -> str:
    content = {
        "format_version": FORMAT_VERSION,
        "split_rule": split.rule,
        "data": content_settings(data),
        "tokenizer": tokenizer_identity(tokenizer),
        "corpus_sha256": corpus.sha256,
        "split_sha256": split.sha256(),
    }
    if _spells_special_tokens(data, tokenizer, corpus):
        content["special_tokens_in_text"] = "text"
    return fingerprint_of(content)


def _spells_special_tokens(data: CorpusSettings, settings: TokenizerSettings, corpus: Corpus) -> bool:
    """Whether documents spell special tokens of a pretrained tokenizer, which stay text; said in a warning."""
    if not isinstance(settings, PretrainedSettings):
        return False
    names = train_tokenizer(settings, ()).special_names()
    counts = {name: sum(document.text.count(name) for document in corpus.documents) for name in sorted(names)}
    spelled = {name: count for name, count in counts.items() if count}
    if spelled:
        logger.warning(
            "data %s: the text spells special tokens of the tokenizer, which stay ordinary text: %s",
            data.name,
            ", ".join(f"{name} ({count:,} times)" for name, count in list(spelled.items())[:5]),
        )
    return bool(spelled)


def _build(
    work: Path, data: CorpusSettings, settings: TokenizerSettings, *, corpus: Corpus, split: Split, fingerprint: str
) -> None:
    """Write all files of a prepared folder into `work`, meta.json last."""
    start = time.perf_counter()
    tokenizer = save_tokenizer(work, settings, (document.text for document in _tokenizer_documents(settings, split)))
    logger.info(
        "data %s: %s tokenizer with %s ids, in %.1f s",
        data.name,
        settings.kind,
        f"{tokenizer.vocab_size:,}",
        _since(start),
    )
    shards = {}
    for side, documents in (("train", split.train), ("val", split.val)):
        start = time.perf_counter()
        shard = _write_side(work / f"{side}.bin", documents, tokenizer=tokenizer, append_eos=split.append_eos)
        if shard.tokens < 2:
            raise DataError(f"the {side} split has {shard.tokens} tokens", needed="at least 2", fix="a larger corpus")
        logger.info(
            "data %s: %s.bin %s tokens, %.2f bytes each, in %.1f s",
            data.name,
            side,
            f"{shard.tokens:,}",
            shard.bytes / shard.tokens,
            _since(start),
        )
        shards[side] = shard
    start = time.perf_counter()
    dtype = np.dtype(token_dtype(tokenizer.vocab_size)).newbyteorder("<")
    train, val = (np.memmap(work / f"{side}.bin", dtype=dtype, mode="r") for side in ("train", "val"))
    losses = reference_losses(train, val, vocab_size=tokenizer.vocab_size)
    logger.info(
        "data %s: reference losses on val: unigram %.4f, bigram %.4f nats per token, in %.1f s",
        data.name,
        losses.unigram,
        losses.bigram,
        _since(start),
    )
    del train, val  # Windows does not rename a folder with open maps
    meta = _meta(data, tokenizer, corpus=corpus, split=split, shards=shards, losses=losses)
    write_meta(work, meta, settings=settings, fingerprint=fingerprint)


def _tokenizer_documents(settings: TokenizerSettings, split: Split) -> Iterator[Document]:
    """The training split only; a character vocabulary needs the characters of both splits and learns no statistics."""
    yield from split.train
    if settings.kind == "char":
        yield from split.val


def _write_side(path: Path, documents: Sequence[Document], *, tokenizer: Tokenizer, append_eos: bool) -> ShardFacts:
    try:
        return write_shard(path, documents, tokenizer=tokenizer, append_eos=append_eos)
    except TokenizerError as error:  # the tokenizer has seen the training text only: name the split with the problem
        raise TokenizerError(
            f"tokenizing the {path.stem} split: {error.given}",
            needed=error.needed,
            fix=f"{error.fix or 'tokenizer=byte'}, or another data.split_seed",
        ) from error


def _since(start: float) -> float:
    return time.perf_counter() - start


def _meta(
    data: CorpusSettings,
    tokenizer: Tokenizer,
    *,
    corpus: Corpus,
    split: Split,
    shards: dict[str, ShardFacts],
    losses: ReferenceLosses,
) -> dict[str, Any]:
    return {
        "format_version": FORMAT_VERSION,
        "name": data.name,
        "kind": data.kind,
        "data_settings": content_settings(data),
        "sources": [dataclasses.asdict(source) for source in corpus.sources],
        "corpus_sha256": corpus.sha256,
        "split": {
            "kind": split.kind,
            "rule": split.rule,
            "seed": data.split_seed,
            "val_fraction": data.val_fraction,
            "groups": split.groups,
            "near_duplicate_groups": split.near_duplicate_groups,
            "near_duplicate_documents": split.near_duplicate_documents,
            "sha256": split.sha256(),
        },
        "splits": {side: dataclasses.asdict(shard) for side, shard in shards.items()},
        "bytes_per_token": {side: shard.bytes / shard.tokens for side, shard in shards.items()},
        "dtype": token_dtype(tokenizer.vocab_size),
        "append_eos": split.append_eos,
        "tokenizer": tokenizer_facts(tokenizer),
        "reference_losses": {"unit": "nats per validation token", **dataclasses.asdict(losses)},
    }
