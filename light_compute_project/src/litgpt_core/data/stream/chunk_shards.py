"""One chunk of a corpus -> its part of both splits, tokenized, as files that exist complete or not at all.

    train-00007.ds        token ids, raw little-endian          (datatrove's names, and its index of documents)
    train-00007.ds.index  where each document ends, in tokens, uint64
    held-00007.ds         the same of the held-out documents; joined to one validation shard at the end
    chunk-00007.json      what was read and written, with hashes: written last, so that a chunk is done if it exists

What is written depends on the chunk, the reader and the tokenizer alone. Not here: which process does it (`pool`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from litgpt_core.core.errors import TokenizerError
from litgpt_core.core.files import write_json
from litgpt_core.core.parsing import ParsingError, read_json
from litgpt_core.data.shards import token_dtype
from litgpt_core.data.stream.chunks import Chunk
from litgpt_core.data.stream.lottery import lottery_number
from litgpt_core.data.stream.readers import Reader, ReadReport
from litgpt_core.tokenizers.base import Tokenizer

SIDES = ("train", "val")
_CHARACTERS_AT_ONCE = 1_000_000
TEMPORARY = ".writing-"
"""Beginning of the names of files that are not finished."""


@dataclass(frozen=True, kw_only=True)
class ShardJob:
    """What every chunk of a corpus has in common; travels to worker processes."""

    name: str
    reader: Reader
    work: Path
    """Folder that the files go to, and that holds `tokenizer/`."""
    share: float
    """Held-out share of the documents."""
    seed: int
    special_names: tuple[str, ...] = ()
    """Spellings of special tokens that stay text, and are counted."""
    threads: int = 0
    """Threads of the tokenizer's library in each process; 0 lets it choose."""
    fast: bool = False
    """Whether the faster library has reproduced the tokenizer's ids (`Tokenizer.use_fast`)."""


@dataclass(kw_only=True)
class SideFacts:
    """What a chunk adds to one split."""

    documents: int = 0
    bytes: int = 0
    """UTF-8 bytes of the text."""
    tokens: int = 0
    """Ids, end-of-document ids included."""
    sha256: str = ""
    """Of the file of ids."""


@dataclass(kw_only=True)
class ChunkFacts:
    """What was read and written for one chunk."""

    number: int
    label: str
    input_bytes: int
    documents_sha256: str = ""
    """Over the length and the UTF-8 bytes of every document, in order."""
    sides: dict[str, SideFacts] = field(default_factory=dict)
    report: ReadReport = field(default_factory=ReadReport)
    spelled: dict[str, int] = field(default_factory=dict)
    """Special token -> how often the text spells it."""
    near_duplicates: int = 0
    """Documents that were read and left out."""

    @classmethod
    def of_json(cls, value: Any) -> ChunkFacts:
        """From what `dataclasses.asdict` gave; raises TypeError or KeyError for anything else."""
        sides = {side: SideFacts(**value["sides"][side]) for side in value["sides"]}
        return cls(**{**value, "sides": sides, "report": ReadReport(**value["report"])})


def facts_path(work: Path, number: int) -> Path:
    """The record of a chunk."""
    return work / f"chunk-{number:05d}.json"


def shard_path(work: Path, side: str, number: int) -> Path:
    """The ids of a chunk's part of one split."""
    return work / f"{'train' if side == 'train' else 'held'}-{number:05d}.ds"


def index_path(shard: Path) -> Path:
    """The ends of a shard's documents."""
    return shard.with_name(shard.name + ".index")


def itemsize_of(tokenizer: Tokenizer) -> int:
    """Bytes of an id in the files."""
    return np.dtype(token_dtype(tokenizer.vocab_size)).itemsize


def finished_facts(work: Path, chunk: Chunk, *, itemsize: int) -> ChunkFacts | None:
    """The record of a chunk that is done, or None; sizes of its files are compared."""
    try:
        facts = ChunkFacts.of_json(read_json(facts_path(work, chunk.number)))
        for side, found in facts.sides.items():
            shard = shard_path(work, side, chunk.number)
            if (
                shard.stat().st_size != found.tokens * itemsize
                or index_path(shard).stat().st_size != found.documents * 8
            ):
                return None
    except (OSError, ParsingError, TypeError, KeyError):
        return None
    same = (facts.number, facts.label, facts.input_bytes) == (chunk.number, chunk.label, chunk.bytes)
    return facts if same and facts.sides.keys() == {*SIDES} else None


def hash_chunk(job: ShardJob, chunk: Chunk) -> str:
    """`documents_sha256` of a chunk, without tokenizing it."""
    documents = _HashedDocuments(job.reader.read(chunk, ReadReport()))
    for _ in documents:
        pass
    return documents.digest.hexdigest()


Kept = Callable[[Iterator[str]], Iterator[str]]
"""Documents of a chunk -> those of them that are kept, in the same order."""


def tokenize_chunk(job: ShardJob, chunk: Chunk, tokenizer: Tokenizer, *, kept: Kept | None = None) -> ChunkFacts:
    """Read, split and tokenize a chunk into the files of `job.work`.

    Args:
        job: What all chunks have in common.
        chunk: What to read.
        tokenizer: That of the corpus.
        kept: Leaves out near-duplicates; None keeps every document.

    Raises:
        DataError: A file cannot be read.
        TokenizerError: The tokenizer cannot represent a document.
        OSError: The disk is full.
    """
    facts = ChunkFacts(number=chunk.number, label=chunk.label, input_bytes=chunk.bytes)
    documents = _HashedDocuments(job.reader.read(chunk, facts.report))
    with contextlib.ExitStack() as stack:
        writers = {side: stack.enter_context(_SideWriter(job, side, chunk.number, tokenizer)) for side in SIDES}
        for text in documents if kept is None else kept(iter(documents)):
            raw = text.encode("utf-8")
            side = "val" if lottery_number(raw, seed=job.seed) < job.share else "train"
            _count_spelled(job, text, facts)
            try:
                writers[side].add(text, len(raw))
            except TokenizerError as error:
                raise _of_chunk(error, chunk) from error
        try:
            facts.sides = {side: writer.finish() for side, writer in writers.items()}
        except TokenizerError as error:
            raise _of_chunk(error, chunk) from error
    facts.documents_sha256 = documents.digest.hexdigest()
    facts.near_duplicates = documents.count - sum(side.documents for side in facts.sides.values())
    write_json(facts_path(job.work, chunk.number), dataclasses.asdict(facts), durable=True)
    return facts


class _HashedDocuments:
    """The documents of a chunk, counted and hashed while they are read."""

    def __init__(self, texts: Iterator[str]) -> None:
        self._texts, self.count, self.digest = texts, 0, hashlib.sha256()

    def __iter__(self) -> Iterator[str]:
        for text in self._texts:
            raw = text.encode("utf-8")
            self.digest.update(b"%d\n" % len(raw))
            self.digest.update(raw)
            self.count += 1
            yield text


def _count_spelled(job: ShardJob, text: str, facts: ChunkFacts) -> None:
    for name in job.special_names:
        if name in text:
            facts.spelled[name] = facts.spelled.get(name, 0) + text.count(name)


def _of_chunk(error: TokenizerError, chunk: Chunk) -> TokenizerError:
    return TokenizerError(
        f"tokenizing {chunk.label}: {error.given}", needed=error.needed, fix=error.fix or "tokenizer=byte"
    )


class _SideWriter:
    """The file of ids and the index of one split's part; both take their names at the end."""

    def __init__(self, job: ShardJob, side: str, number: int, tokenizer: Tokenizer) -> None:
        self._tokenizer, self._threads = tokenizer, job.threads
        self._dtype = np.dtype(token_dtype(tokenizer.vocab_size)).newbyteorder("<")
        self._shard = shard_path(job.work, side, number)
        self._temporary = [
            path.with_name(f"{TEMPORARY}{os.getpid()}-{path.name}") for path in (self._shard, index_path(self._shard))
        ]
        self._facts, self._digest = SideFacts(), hashlib.sha256()
        self._waiting: list[str] = []
        self._characters = 0
        self._files: list[BinaryIO] = []

    def __enter__(self) -> _SideWriter:
        self._files = [path.open("wb") for path in self._temporary]
        return self

    def __exit__(self, *_: object) -> None:
        for file, path in zip(self._files, self._temporary, strict=True):
            file.close()
            path.unlink(missing_ok=True)

    def add(self, text: str, raw_bytes: int) -> None:
        """A document; it is written with its neighbours."""
        self._waiting.append(text)
        self._facts.documents += 1
        self._facts.bytes += raw_bytes
        self._characters += len(text)
        if self._characters >= _CHARACTERS_AT_ONCE:
            self._write()

    def _write(self) -> None:
        ids_file, index_file = self._files
        ending, ends = np.array([self._tokenizer.eos_id], dtype=self._dtype).tobytes(), list[int]()
        for ids in self._tokenizer.encode_plain_arrays(self._waiting, threads=self._threads):
            raw = ids.astype(self._dtype).tobytes() + ending
            self._digest.update(raw)
            ids_file.write(raw)
            self._facts.tokens += len(raw) // self._dtype.itemsize
            ends.append(self._facts.tokens)
        index_file.write(np.array(ends, dtype="<u8").tobytes())
        self._waiting, self._characters = [], 0

    def finish(self) -> SideFacts:
        """Write what is left, flush to disk and give both files their names."""
        self._write()
        for file, path, final in zip(self._files, self._temporary, (self._shard, index_path(self._shard)), strict=True):
            file.flush()
            os.fsync(file.fileno())
            file.close()
            path.replace(final)
        self._facts.sha256 = self._digest.hexdigest()
        return self._facts
