"""Worker processes over the chunks of a corpus. What is written does not depend on them, so that any number of workers,
kills and new starts give the same bytes.

One worker works in this process. More are processes that are started anew (`spawn`), so that neither threads nor CUDA
are inherited; each loads the tokenizer once and uses one thread. Chunks are given out a few at a time, in order.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from litgpt_core.core.errors import DataError
from litgpt_core.data.stream.chunk_shards import ChunkFacts, ShardJob, hash_chunk, tokenize_chunk
from litgpt_core.data.stream.chunks import Chunk

logger = logging.getLogger(__name__)

ONE_THREAD = {"TOKENIZERS_PARALLELISM": "false", "RAYON_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
_REPORT_S = 10.0


def worker_count(requested: int, *, chunks: int) -> int:
    """Processes for `data.workers`; 0: one per core of this process, never more than there are chunks."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(requested or cores, chunks))


def tokenize_all(
    job: ShardJob, chunks: Sequence[Chunk], *, workers: int, progress: Callable[[ChunkFacts], None]
) -> Iterator[ChunkFacts]:
    """The facts of every chunk, in the order in which they are finished.

    Raises:
        DataError, TokenizerError, OSError: What a worker raised, or a worker died.
    """
    for facts in _each(job, chunks, _tokenize, workers=workers):
        progress(facts)
        yield facts


def hash_all(job: ShardJob, chunks: Sequence[Chunk], *, workers: int) -> dict[int, str]:
    """`documents_sha256` of every chunk by number, without tokenizing.

    Raises:
        DataError: A file cannot be read.
    """
    return dict(_each(job, chunks, _hash, workers=workers))


def _each(
    job: ShardJob, chunks: Sequence[Chunk], function: Callable[[ShardJob, Chunk], Any], *, workers: int
) -> Iterator[Any]:
    if workers == 1:
        for chunk in chunks:
            yield function(job, chunk)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_start) as pool:
        waiting: set[Future[Any]] = set()
        try:
            for chunk in chunks:
                waiting.add(pool.submit(function, job, chunk))
                while len(waiting) >= 2 * workers:
                    done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                    yield from (each.result() for each in done)
            while waiting:
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                yield from (each.result() for each in done)
        except BrokenProcessPool as error:
            raise DataError(
                "a worker process ended before its chunk was done: it was killed, perhaps for lack of memory, or could "
                "not start",
                needed="memory for every worker; in a script of your own: its code below `if __name__ == '__main__':`",
                fix="the same command again continues with the chunks that are left; data.workers=1 uses no processes",
            ) from error
        finally:
            for each in waiting:
                each.cancel()


def _start() -> None:
    os.environ.update(ONE_THREAD)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the main process ends its workers


_loaded: dict[str, Any] = {}


def _tokenize(job: ShardJob, chunk: Chunk) -> ChunkFacts:
    place = str(job.work / "tokenizer")
    if place not in _loaded:
        from litgpt_core.tokenizers.registry import load

        _loaded.clear()
        _loaded[place] = load(job.work / "tokenizer")
        if job.fast:
            _loaded[place].use_fast(())
    return tokenize_chunk(job, chunk, _loaded[place])


def _hash(job: ShardJob, chunk: Chunk) -> tuple[int, str]:
    return chunk.number, hash_chunk(job, chunk)


class PreparationProgress:
    """Says every few seconds how far a preparation is, how fast, and how long it will take.

    Args:
        name: Of the data, for log lines.
        total_bytes: Of all chunks.
        done_bytes: Of those that an earlier start finished.
        chunks: How many there are.
    """

    def __init__(self, name: str, *, total_bytes: int, done_bytes: int, chunks: int, done: int) -> None:
        self._name, self._total, self._chunks = name, total_bytes, chunks
        self._before, self._bytes, self._done, self._tokens = done_bytes, done_bytes, done, 0
        self._start = self._reported = time.perf_counter()

    def __call__(self, facts: ChunkFacts) -> None:
        """A chunk is done."""
        self._bytes += facts.input_bytes
        self._done += 1
        self._tokens += sum(side.tokens for side in facts.sides.values())
        now = time.perf_counter()
        if now - self._reported >= _REPORT_S:
            self._reported = now
            logger.info("data %s: %s", self._name, self.line(now - self._start))

    def line(self, seconds: float) -> str:
        """How far and how fast, after `seconds` of this start."""
        rate = (self._bytes - self._before) / max(seconds, 1e-9)
        left = (self._total - self._bytes) / max(rate, 1e-9)
        return (
            f"{self._done:,} of {self._chunks:,} chunks, {self._bytes / 1e6:,.0f} of {self._total / 1e6:,.0f} MB, "
            f"{rate / 1e6:.3g} MB/s, {self._tokens / max(seconds, 1e-9) / 1e6:.3g} M tokens/s, "
            + (f"{left / 60:.0f} min left" if left >= 90 else f"{left:.0f} s left")
        )

    def summary(self) -> str:
        """The same at the end."""
        return self.line(time.perf_counter() - self._start).rpartition(", ")[0]
