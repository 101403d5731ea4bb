"""Corpus -> tokenizer -> shards: makes `<cache_dir>/<name>-<hash12>/` once and finds it again.

    train.bin val.bin        token ids, raw little-endian
    tokenizer/               the files that LitGPT loads
    meta.json                what all of it was made from, with hashes; docs/data.md explains each entry

Not here: reading sources (`sources`), the split (`split`), batches (`dataset`). The folder's name carries the
fingerprint of everything that decides its content, so changed settings make another folder and never a mixed one. It is
written beside its final place and renamed, so a folder that exists is complete; several processes may prepare the same
data at once.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from litgpt_core.core.errors import ConfigError, DataError, TokenizerError
from litgpt_core.core.lock import exclusive
from litgpt_core.data.document import Corpus, Document
from litgpt_core.data.ngram import ReferenceLosses, reference_losses
from litgpt_core.data.prepared import (
    FORMAT_VERSION,
    PreparedData,
    canonical_json,
    folder_problem,
    meta_sha256,
    open_prepared,
)
from litgpt_core.data.settings import ChatDataSettings, CorpusSettings, DataSettings, cache_folder
from litgpt_core.data.shards import ShardFacts, token_dtype, write_shard
from litgpt_core.data.sources import read_corpus
from litgpt_core.data.split import SPLIT_RULE, Split, split_corpus
from litgpt_core.tokenizers.base import Tokenizer
from litgpt_core.tokenizers.directory import copy_companions
from litgpt_core.tokenizers.registry import train as train_tokenizer
from litgpt_core.tokenizers.settings import PretrainedSettings, TokenizerSettings

__all__ = ["PreparedData", "open_prepared", "prepare"]

logger = logging.getLogger(__name__)

LOCATIONS = ("cache_dir", "path", "url", "timeout_s")
"""Settings that say where things are, not what they are: not part of the fingerprint, because the corpus hash is."""


def prepare(data: DataSettings, tokenizer: TokenizerSettings) -> PreparedData:
    """Find the prepared folder for these settings, or make it.

    The corpus is read and split in any case (under a second for 30 MB), so a changed file is noticed.

    Raises:
        ConfigError: Conversations, which are prepared for one model: see `chat_prepare`.
        DataError: The corpus cannot be read or split, or the folder cannot be written.
        TokenizerError: The tokenizer cannot be trained on this text, or cannot represent the validation text.
    """
    if isinstance(data, ChatDataSettings):
        raise ConfigError(
            "data=chat: conversations are prepared for one model, with its prompt style and its context length",
            needed="a corpus of text here",
            fix="train.py +experiment=finetune_chat init_from=CHECKPOINT, which prepares them by itself",
        )
    corpus = read_corpus(data)
    split = split_corpus(corpus, data)
    fingerprint = _fingerprint(data, tokenizer, corpus=corpus, split=split)

    def build(work: Path) -> None:
        _build(work, data, tokenizer, corpus=corpus, split=split, fingerprint=fingerprint)

    return find_or_make(data, fingerprint=fingerprint, build=build)


def find_or_make(data: DataSettings, *, fingerprint: str, build: Callable[[Path], None]) -> PreparedData:
    """The folder of that fingerprint if it is there and whole, else what `build` writes into an empty one.

    Raises:
        DataError: The folder cannot be written.
    """
    folder = cache_folder(data)
    target = folder / f"{data.name}-{fingerprint[:12]}"
    if target.exists() and not (problem := folder_problem(target, fingerprint=fingerprint)):
        return _reuse(target)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with exclusive(folder / f".{target.name}.lock", purpose=f"preparing {target.name}") as held:
            if target.exists():
                if not (problem := folder_problem(target, fingerprint=fingerprint)):
                    return _reuse(target)
                logger.warning("data: preparing %s again: %s", target, problem)
            if held:
                _remove_leftovers(folder, target.name)
            work = folder / f".{target.name}.tmp-{os.getpid()}-{secrets.token_hex(3)}"
            try:
                work.mkdir()
                build(work)
                _publish(work, target, fingerprint=fingerprint)
            finally:
                shutil.rmtree(work, ignore_errors=True)
    except OSError as error:
        raise DataError(
            f"cannot write prepared data to {folder}: {error.strerror or error}",
            needed="a folder that can be written, with room for about half the size of the text",
            fix="data.cache_dir=/another/folder",
        ) from error
    return open_prepared(target)


def find_prepared(data: DataSettings, *, fingerprint: str) -> PreparedData | None:
    """The whole folder of that fingerprint if it is there; the corpus is not looked at."""
    target = cache_folder(data) / f"{data.name}-{fingerprint[:12]}"
    if not target.exists() or folder_problem(target, fingerprint=fingerprint):
        return None
    return _reuse(target)


def _reuse(target: Path) -> PreparedData:
    prepared = open_prepared(target)
    logger.info(
        "data: using %s, %s train and %s val tokens", target, f"{prepared.train_tokens:,}", f"{prepared.val_tokens:,}"
    )
    return prepared


def _fingerprint(data: CorpusSettings, tokenizer: TokenizerSettings, *, corpus: Corpus, split: Split) -> str:
    decides = {
        "format_version": FORMAT_VERSION,
        "split_rule": SPLIT_RULE,
        "data": content_settings(data),
        "tokenizer": tokenizer_identity(tokenizer),
        "corpus_sha256": corpus.sha256,
        "split_sha256": split.sha256(),
    }
    return hashlib.sha256(canonical_json(decides)).hexdigest()


def tokenizer_identity(settings: TokenizerSettings) -> dict[str, Any]:
    """For a fingerprint: what decides the ids: the settings that train a tokenizer, or the very one that exists."""
    if isinstance(settings, PretrainedSettings):
        return {"kind": settings.kind, "fingerprint": train_tokenizer(settings, ()).fingerprint()}
    return dataclasses.asdict(settings)


def content_settings(data: DataSettings) -> dict[str, Any]:
    """The settings that decide what is in a prepared folder."""
    return {key: value for key, value in dataclasses.asdict(data).items() if key not in LOCATIONS}


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


def save_tokenizer(work: Path, settings: TokenizerSettings, texts: Iterable[str]) -> Tokenizer:
    """Train or load the tokenizer and write its files, and those that travel with it, below `work`."""
    tokenizer = train_tokenizer(settings, texts)
    tokenizer.save(work / "tokenizer")
    if isinstance(settings, PretrainedSettings) and settings.path is not None:
        copy_companions(Path(settings.path).expanduser(), work / "tokenizer")
    return tokenizer


def write_meta(work: Path, meta: dict[str, Any], *, settings: TokenizerSettings, fingerprint: str) -> None:
    """Complete and write meta.json; last of all, because it lists the hashes of the tokenizer's files."""
    files = sorted(path for path in (work / "tokenizer").iterdir() if path.is_file())
    meta["tokenizer"] |= {"files": {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}}
    meta |= {"fingerprint": fingerprint, "tokenizer_settings": dataclasses.asdict(settings)}
    meta |= {"meta_sha256": meta_sha256(meta)}
    (work / "meta.json").write_text(json.dumps(meta, indent=2) + "\n", encoding="utf-8")


def _tokenizer_documents(settings: TokenizerSettings, split: Split) -> Iterator[Document]:
    """The train split only; a character vocabulary is an alphabet, learns no statistics, and must be able to write
    both sides.
    """
    yield from split.train
    if settings.kind == "char":
        yield from split.val


def _write_side(path: Path, documents: Sequence[Document], *, tokenizer: Tokenizer, append_eos: bool) -> ShardFacts:
    try:
        return write_shard(path, documents, tokenizer=tokenizer, append_eos=append_eos)
    except TokenizerError as error:  # the tokenizer knows the training text only: say which side the problem is in
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
            "rule": SPLIT_RULE,
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


def tokenizer_facts(tokenizer: Tokenizer) -> dict[str, Any]:
    """The tokenizer's entry in meta.json, before its files are listed."""
    return {
        "kind": tokenizer.kind,
        "vocab_size": tokenizer.vocab_size,
        "eos_id": tokenizer.eos_id,
        "fingerprint": tokenizer.fingerprint(),
    }


def _publish(work: Path, target: Path, *, fingerprint: str) -> None:
    """Rename the finished folder into place; where another process was faster, use its folder if that is good."""
    if target.exists():
        if not folder_problem(target, fingerprint=fingerprint):
            return
        discarded = work.with_name(work.name + ".old")
        target.rename(discarded)
        shutil.rmtree(discarded, ignore_errors=True)
    try:
        work.rename(target)
    except OSError:
        if folder_problem(target, fingerprint=fingerprint):
            raise
    else:
        logger.info("data: wrote %s", target)


def _remove_leftovers(folder: Path, name: str) -> None:
    """Unfinished folders of processes that died; only the holder of the lock may do this."""
    for leftover in folder.glob(f".{name}.tmp-*"):
        logger.info("data: removing %s, left by an interrupted preparation", leftover)
        shutil.rmtree(leftover, ignore_errors=True)
