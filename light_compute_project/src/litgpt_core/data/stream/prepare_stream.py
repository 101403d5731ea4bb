"""A corpus of any size -> a prepared folder of many shards, in constant memory; interrupted work is continued.

    .NAME-KEY.work/        the folder while it is being made: finished chunks stay when the process is killed
    NAME-FINGERPRINT/      the same folder, renamed when all chunks are done

The key covers settings, tokenizer, and name, size and times of every input: changed inputs begin anew. The fingerprint
covers the documents instead of the times. Not here: one chunk (`chunk_shards`), processes (`pool`), the files that
complete a folder (`finish`).
"""

from __future__ import annotations

import dataclasses
import itertools
import logging
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from litgpt_core.core.errors import DataError
from litgpt_core.core.lock import exclusive
from litgpt_core.data.prepared import folder_problem
from litgpt_core.data.prepared_folder import (
    content_settings,
    find_folder,
    fingerprint_of,
    publish,
    save_tokenizer,
    tokenizer_identity,
)
from litgpt_core.data.settings import StreamSettings, TextSettings, cache_folder
from litgpt_core.data.stream.chunk_shards import TEMPORARY, ChunkFacts, ShardJob, finished_facts, itemsize_of
from litgpt_core.data.stream.chunks import Chunk
from litgpt_core.data.stream.finish import clean, finish_folder
from litgpt_core.data.stream.inputs import InputFile, list_inputs, state_of
from litgpt_core.data.stream.lottery import STREAM_RULE, held_out_share, lottery_number
from litgpt_core.data.stream.manifest import STREAM_FORMAT, read_manifest
from litgpt_core.data.stream.pool import PreparationProgress, hash_all, tokenize_all, worker_count
from litgpt_core.data.stream.readers import Reader, ReadReport
from litgpt_core.data.stream.reading import reader_of
from litgpt_core.data.stream_settings import RowsSettings
from litgpt_core.data.unchanged import find_unchanged, inputs_state, recorded_fingerprint, remember
from litgpt_core.tokenizers.base import Tokenizer
from litgpt_core.tokenizers.registry import load as load_tokenizer
from litgpt_core.tokenizers.settings import PretrainedSettings, SubwordSettings, TokenizerSettings

logger = logging.getLogger(__name__)

SMALL = 16_000_000
"""Bytes of input up to which the lottery is looked at beforehand, so that neither split is empty."""
FAST_SAMPLE = 1_000_000
"""Characters on which the faster library is compared."""
_SAMPLED = 64  # chunks that a tokenizer's training text comes from
_EXPANSION = 4  # bytes of text per byte of a compressed file, to keep within val_bytes


@dataclass(frozen=True, kw_only=True)
class StreamCorpus:
    """A corpus as its names and sizes describe it."""

    data: StreamSettings
    tokenizer: TokenizerSettings
    files: list[InputFile]
    reader: Reader
    chunks: list[Chunk]
    share: float
    """Of the documents, held out."""

    @classmethod
    def of(cls, data: StreamSettings, tokenizer: TokenizerSettings, files: list[InputFile]) -> StreamCorpus:
        """Cut the files; nothing but a small corpus is read."""
        reader = reader_of(data)
        chunks = reader.chunks(files, chunk_bytes=getattr(data, "chunk_bytes", 0))
        total = sum(file.bytes * (1 if reader.divisible(file.name) else _EXPANSION) for file in files)
        share = held_out_share(
            total, val_fraction=data.val_fraction, val_bytes=int(getattr(data, "val_bytes", 64_000_000))
        )
        if total <= SMALL:
            share = _share_that_fills_both(reader, chunks, share, seed=data.split_seed)
        return cls(data=data, tokenizer=tokenizer, files=files, reader=reader, chunks=chunks, share=share)

    @property
    def content(self) -> dict[str, Any]:
        """What decides the shards, but for the documents."""
        return {
            "format_version": STREAM_FORMAT,
            "split_rule": STREAM_RULE,
            "data": content_settings(self.data),
            "tokenizer": tokenizer_identity(self.tokenizer),
            "share": self.share,
            "chunks": [[chunk.label, chunk.bytes] for chunk in self.chunks],
        }

    def fingerprint(self, hashes: dict[int, str]) -> str:
        """Of the folder; `hashes` are `documents_sha256` by number of the chunk."""
        return fingerprint_of({**self.content, "documents": [hashes[chunk.number] for chunk in self.chunks]})

    def job(self, work: Path, *, special_names: tuple[str, ...] = (), threads: int = 0, fast: bool = False) -> ShardJob:
        """What workers need."""
        return ShardJob(
            name=self.data.name,
            reader=self.reader,
            work=work,
            share=self.share,
            seed=self.data.split_seed,
            special_names=special_names,
            threads=threads,
            fast=fast,
        )


def prepare_stream(data: StreamSettings, tokenizer: TokenizerSettings) -> Path:
    """The prepared folder for these settings, made or completed if it does not exist.

    Raises:
        DataError: The corpus cannot be read, one split would be empty, or the folder cannot be written.
        TokenizerError: The tokenizer cannot be trained on this text, or cannot represent some of it.
    """
    began = time.time()
    files = list_inputs(data.path, data.glob)
    state = inputs_state(data) if isinstance(data, TextSettings) else state_of(files)
    if state and data.verify == "stat":
        found = find_unchanged(data, tokenizer, state)
        if found is not None:
            return found
    corpus = StreamCorpus.of(data, tokenizer, files)
    directory = _same_documents(corpus) or _make(corpus)
    if state:
        remember(data, tokenizer, state, began=began, fingerprint=str(read_manifest(directory)["fingerprint"]))
    return directory


def _same_documents(corpus: StreamCorpus) -> Path | None:
    """The folder that an earlier start made of files that were only touched, or are to be verified: the files are read
    and hashed, not tokenized.
    """
    data = corpus.data
    recorded = recorded_fingerprint(data, corpus.tokenizer)
    folder = find_folder(data, fingerprint=recorded) if recorded else None
    if folder is None:
        return None
    logger.info("data %s: reading %s files to compare them with %s", data.name, f"{len(corpus.files):,}", folder.name)
    workers = worker_count(data.workers, chunks=len(corpus.chunks))
    hashes = hash_all(corpus.job(folder), corpus.chunks, workers=workers)
    if corpus.fingerprint(hashes) == recorded:
        return folder
    logger.info("data %s: the documents have changed since %s was made", data.name, folder.name)
    return None


def _make(corpus: StreamCorpus) -> Path:
    data, folder = corpus.data, cache_folder(corpus.data)
    key = fingerprint_of({**corpus.content, "inputs": state_of(corpus.files)})[:12]
    work = folder / f".{data.name}-{key}.work"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with exclusive(folder / f".{data.name}-{key}.lock", purpose=f"preparing {data.name}", keep=True):
            fingerprint = _fill(corpus, work)
            target = folder / f"{data.name}-{fingerprint[:12]}"
            if not target.exists() or folder_problem(target, fingerprint=fingerprint):
                publish(work, target, fingerprint=fingerprint)
            shutil.rmtree(work, ignore_errors=True)
    except OSError as error:
        raise DataError(
            f"cannot write prepared data to {folder}: {error.strerror or error}",
            needed="a writable folder with free space; `lcp data --dry_run` says how much",
            fix="data.cache_dir=/another/folder, or free some space: the same command continues where this one ended",
        ) from error
    return target


def _fill(corpus: StreamCorpus, work: Path) -> str:
    """Do what is left to do in the working folder; the fingerprint."""
    work.mkdir(exist_ok=True)
    if not folder_problem(work):  # complete, but not yet renamed
        clean(work)
        return str(read_manifest(work)["fingerprint"])
    for leftover in work.glob(f"{TEMPORARY}*"):
        shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
    tokenizer = _tokenizer(corpus, work)
    itemsize = itemsize_of(tokenizer)
    done: dict[int, ChunkFacts] = {}
    for chunk in corpus.chunks:
        facts = finished_facts(work, chunk, itemsize=itemsize)
        if facts is not None:
            done[chunk.number] = facts
    left = [chunk for chunk in corpus.chunks if chunk.number not in done]
    workers = worker_count(corpus.data.workers, chunks=max(1, len(left)))
    if done:
        logger.info("data %s: %s chunk(s) are done, %s left", corpus.data.name, f"{len(done):,}", f"{len(left):,}")
    progress = PreparationProgress(
        corpus.data.name,
        total_bytes=sum(chunk.bytes for chunk in corpus.chunks),
        done_bytes=sum(facts.input_bytes for facts in done.values()),
        chunks=len(corpus.chunks),
        done=len(done),
    )
    names = tuple(sorted(tokenizer.special_names())) if isinstance(corpus.tokenizer, PretrainedSettings) else ()
    job = corpus.job(work, special_names=names, threads=1 if workers > 1 else 0)
    if isinstance(corpus.data, RowsSettings) and corpus.data.engine == "datatrove":
        from litgpt_core.data.stream.datatrove_engine import tokenize_with_datatrove

        found = tokenize_with_datatrove(
            corpus.data, job, corpus.chunks, left, itemsize=itemsize, workers=workers, progress=progress
        )
    else:
        fast = bool(left) and corpus.data.fast_tokenizer == "auto" and _is_fast(corpus, tokenizer)
        found = tokenize_all(dataclasses.replace(job, fast=fast), left, workers=workers, progress=progress)
    for facts in found:
        done[facts.number] = facts
    if left:
        logger.info("data %s: %s, %d worker(s)", corpus.data.name, progress.summary(), workers)
    ordered = [done[chunk.number] for chunk in corpus.chunks]
    fingerprint = corpus.fingerprint({facts.number: facts.documents_sha256 for facts in ordered})
    finish_folder(
        work,
        corpus.data,
        corpus.tokenizer,
        trained=tokenizer,
        facts=ordered,
        files=corpus.files,
        share=corpus.share,
        fingerprint=fingerprint,
    )
    clean(work)
    return fingerprint


def _tokenizer(corpus: StreamCorpus, work: Path) -> Tokenizer:
    """The tokenizer in the working folder, trained or copied there first: its folder is complete or absent."""
    place = work / "tokenizer"
    if not place.is_dir():
        start = time.perf_counter()
        temporary = work / f"{TEMPORARY}tokenizer"
        save_tokenizer(temporary, corpus.tokenizer, _training_texts(corpus))
        (temporary / "tokenizer").rename(place)
        temporary.rmdir()
        tokenizer = load_tokenizer(place)
        logger.info(
            "data %s: %s tokenizer with %s ids, in %.1f s",
            corpus.data.name,
            corpus.tokenizer.kind,
            f"{tokenizer.vocab_size:,}",
            time.perf_counter() - start,
        )
        return tokenizer
    return load_tokenizer(place)


def _is_fast(corpus: StreamCorpus, tokenizer: Tokenizer) -> bool:
    """Whether the faster library gives the tokenizer's ids on about a megabyte of the corpus."""
    sample, characters = list[str](), 0
    for chunk in corpus.chunks[:: max(1, len(corpus.chunks) // 8)]:
        for text in itertools.islice(corpus.reader.read(chunk, ReadReport()), 64):
            if characters < FAST_SAMPLE:
                sample.append(text[:FAST_SAMPLE])
                characters += len(text)
    return tokenizer.use_fast(sample)


def _training_texts(corpus: StreamCorpus) -> Iterator[str]:
    """Text that a tokenizer is trained on: the beginnings of up to 64 chunks spread over the corpus, training documents
    only; for a vocabulary of characters all documents.
    """
    settings, chunks = corpus.tokenizer, corpus.chunks
    if settings.kind == "char":
        for chunk in chunks:
            yield from corpus.reader.read(chunk, ReadReport())
        return
    budget = 2 * settings.max_train_bytes if isinstance(settings, SubwordSettings) else 0
    count = min(_SAMPLED, len(chunks))
    for i in range(count):
        left = budget // count
        for text in corpus.reader.read(chunks[i * len(chunks) // count], ReadReport()):
            raw = text.encode("utf-8")
            if lottery_number(raw, seed=corpus.data.split_seed) >= corpus.share:
                yield text
                left -= len(raw)
            if left <= 0:
                break


def _share_that_fills_both(reader: Reader, chunks: list[Chunk], share: float, *, seed: int) -> float:
    """For a small corpus: the share, moved as little as possible so that each split has a document.

    Raises:
        DataError: All documents have one number: there is one document, or copies of it.
    """
    numbers = {
        lottery_number(text.encode("utf-8"), seed=seed) for chunk in chunks for text in reader.read(chunk, ReadReport())
    }
    if len(numbers) == 1:
        raise DataError(
            "the corpus cannot be split: it has one document, or copies of it",
            needed="at least two different documents",
            fix="a larger corpus",
        )
    if not numbers or min(numbers) < share <= max(numbers):
        return share
    lowest = sorted(numbers)
    return (lowest[0] + lowest[1]) / 2 if share <= lowest[0] else (lowest[-2] + lowest[-1]) / 2
