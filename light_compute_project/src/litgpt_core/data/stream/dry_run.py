"""What preparing a corpus would take, before anything is written: chunks, tokens, disk, minutes.

A sample of about 2 MB from a chunk in the middle is read and tokenized; everything else follows from sizes.
"""

from __future__ import annotations

import dataclasses
import shutil
import time
from dataclasses import dataclass

import numpy as np

from litgpt_core.core.errors import ConfigError, DataError, TokenizerError
from litgpt_core.data.settings import DataSettings, StreamSettings, TextSettings, cache_folder
from litgpt_core.data.shards import token_dtype
from litgpt_core.data.stream.chunks import Chunk
from litgpt_core.data.stream.inputs import list_inputs
from litgpt_core.data.stream.pool import worker_count
from litgpt_core.data.stream.prepare_stream import StreamCorpus
from litgpt_core.data.stream.readers import Reader, ReadReport
from litgpt_core.data.stream_settings import RowsSettings
from litgpt_core.tokenizers.base import Tokenizer
from litgpt_core.tokenizers.registry import train as train_tokenizer
from litgpt_core.tokenizers.settings import ByteSettings, SubwordSettings, TokenizerSettings

SAMPLE_BYTES = 2_000_000


@dataclass(frozen=True, kw_only=True)
class PreparationEstimate:
    """What a preparation would take."""

    files: int
    input_bytes: int
    """As stored."""
    chunks: int
    workers: int
    text_bytes: float
    """After unpacking."""
    tokens: float
    disk_bytes: float
    seconds: float
    share: float
    """Of the documents, held out."""

    def lines(self) -> dict[str, str]:
        """For the terminal."""
        minutes = self.seconds / 60
        return {
            "inputs": f"{self.files:,} files, {self.input_bytes / 1e6:,.1f} MB",
            "chunks": f"{self.chunks:,}, for {self.workers} worker(s)",
            "text": f"about {self.text_bytes / 1e6:,.1f} MB, {100 * self.share:.2g} % of it for validation",
            "tokens": f"about {self.tokens / 1e6:,.1f} million",
            "disk": f"about {self.disk_bytes / 1e6:,.1f} MB",
            "time": f"about {minutes:,.0f} minutes" if minutes >= 2 else f"about {self.seconds:,.0f} seconds",
        }


def estimate(data: StreamSettings, settings: TokenizerSettings) -> PreparationEstimate:
    """Read and tokenize a sample; writes nothing.

    Raises:
        DataError: The corpus cannot be read, or the sample holds no text.
        TokenizerError: The tokenizer cannot be trained or loaded.
    """
    files = list_inputs(data.path, data.glob)
    corpus = StreamCorpus.of(data, settings, files)
    workers = worker_count(data.workers, chunks=len(corpus.chunks))
    texts, ratio, read_s = _sample(corpus.reader, corpus.chunks[len(corpus.chunks) // 2])
    if not texts:
        raise DataError(f"a sample of {data.path} holds no text", needed="rows with text", fix="data.text_key=KEY")
    sample_bytes = sum(len(text.encode("utf-8")) for text in texts)
    began = time.perf_counter()
    tokenizer = _of_sample(settings, texts, sample_bytes)
    training_s = time.perf_counter() - began if isinstance(settings, SubwordSettings) else 0.0
    began = time.perf_counter()
    tokens = sum(map(len, tokenizer.encode_plain_batch(texts, threads=1))) + len(texts)
    seconds_per_byte = (time.perf_counter() - began + read_s) / sample_bytes
    text_bytes = ratio * sum(file.bytes for file in files)
    all_tokens = tokens / sample_bytes * text_bytes
    width = np.dtype(token_dtype(getattr(settings, "vocab_size", tokenizer.vocab_size))).itemsize
    documents = len(texts) / sample_bytes * text_bytes
    scale = min(text_bytes, getattr(settings, "max_train_bytes", 0)) / sample_bytes
    return PreparationEstimate(
        files=len(files),
        input_bytes=sum(file.bytes for file in files),
        chunks=len(corpus.chunks),
        workers=workers,
        text_bytes=text_bytes,
        tokens=all_tokens,
        disk_bytes=all_tokens * width + 8 * documents,
        seconds=seconds_per_byte * text_bytes / workers + training_s * max(1.0, scale),
        share=corpus.share,
    )


def dry_run_lines(data: DataSettings, settings: TokenizerSettings) -> dict[str, str]:
    """The estimate for the terminal, with the space that is free.

    Raises:
        ConfigError: The corpus is of a kind that is read into memory, or not read.
    """
    if not isinstance(data, TextSettings | RowsSettings):
        raise ConfigError(
            f"--dry_run with data={data.kind}: nothing is known about it before it is read",
            needed="data=text, jsonl, parquet or arrow",
            fix="the same command without --dry_run",
        )
    return {**estimate(data, settings).lines(), "free": f"{free_bytes(data) / 1e6:,.0f} MB in {cache_folder(data)}"}


def free_bytes(data: StreamSettings) -> int:
    """Free space where the folder would be."""
    place = cache_folder(data)
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free


def _sample(reader: Reader, chunk: Chunk) -> tuple[list[str], float, float]:
    """(documents, bytes of text per byte of the chunk's files, seconds of reading)."""
    began = time.perf_counter()
    texts, size, complete = list[str](), 0, True
    for text in reader.read(chunk, ReadReport()):
        texts.append(text)
        size += len(text.encode("utf-8"))
        if size >= SAMPLE_BYTES:
            complete = False
            break
    read_s = time.perf_counter() - began
    ratio = size / chunk.bytes if complete else reader.text_per_byte(chunk)
    return texts, ratio, read_s


def _of_sample(settings: TokenizerSettings, texts: list[str], sample_bytes: int) -> Tokenizer:
    """The tokenizer, or one with as large a vocabulary as the sample allows."""
    if not isinstance(settings, SubwordSettings):
        return train_tokenizer(settings, texts)
    size = min(settings.vocab_size, max(512, sample_bytes // 400))
    while size > 256:
        try:
            return train_tokenizer(dataclasses.replace(settings, vocab_size=size), texts)
        except TokenizerError:
            size //= 2
    return train_tokenizer(ByteSettings(), ())
