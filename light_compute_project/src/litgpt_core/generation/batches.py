"""The batches behind the engine's own generations: one for some sequences, and one that outlives a generation."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from litgpt_core.generation.continuous_batch import ContinuousBatch

if TYPE_CHECKING:
    from litgpt_core.generation.decoder import Decoder
    from litgpt_core.generation.request import Delta
    from litgpt_core.generation.sequence_state import SequenceState
    from litgpt_core.generation.stats import GenerationStats

logger = logging.getLogger(__name__)


def batch_of(
    decoder: Decoder, sequences: Sequence[SequenceState], *, vocab_size: int, speculative: bool = False
) -> ContinuousBatch:
    """A batch of these sequences, its cache no longer than they need."""
    block_size = sequences[0].window.block_size
    longest = max(len(sequence.window.ids) for sequence in sequences)
    if longest > block_size:
        logger.warning("The prompt has %d tokens: only the last %d are used", longest, max(1, block_size // 2))
    most = max(len(sequence.window.ids) + sequence.request.max_new_tokens for sequence in sequences)
    length = max(1, min(block_size, most + decoder.max_decode_steps - 1))  # multi-step decode may pass a stop id
    n = len(sequences)
    batch = ContinuousBatch(decoder, n_slots=n, length=length, vocab_size=vocab_size, speculative=speculative)
    for sequence in sequences:
        batch.add(sequence)
    return batch


class KeptBatch:
    """One sequence after the other in the same cache, so that the next turn of a conversation finds the ones before."""

    def __init__(self) -> None:
        self._batch: ContinuousBatch | None = None

    def __bool__(self) -> bool:
        """Whether a cache is kept."""
        return self._batch is not None

    def forget(self) -> None:
        """The cache is used otherwise, or freed."""
        self._batch = None

    def batch_of(
        self, decoder: Decoder, sequence: SequenceState, *, vocab_size: int, speculative: bool = False
    ) -> ContinuousBatch | None:
        """The batch of the generation before, with this sequence in it; None where nothing can be kept."""
        block_size = sequence.window.block_size
        if not decoder.tokens_are_independent or len(sequence.window.ids) > block_size:
            self._batch = None
            return None
        if self._batch is None:
            sizes = {"n_slots": 1, "length": block_size, "vocab_size": vocab_size}
            self._batch = ContinuousBatch(decoder, **sizes, keep_prefixes=True, speculative=speculative)
        for other in list(self._batch.sequences):  # of a generation that this one ends
            self._batch.drop(other)
        self._batch.add(sequence)
        return self._batch


def deltas_of(
    sequence: SequenceState,
    batch: ContinuousBatch,
    stats: GenerationStats,
    *,
    start: float,
    is_current: Callable[[], bool],
) -> Iterator[Delta]:
    """Decode a batch of one sequence to its end, or until its reader leaves; raises the error that ends it.

    Args:
        sequence: In `batch`.
        batch: Holds nothing else.
        stats: Kept up to date.
        start: When the generation began, in seconds of time.perf_counter.
        is_current: False once another generation has taken the decoder, which ends this one.
    """
    stats.reused_tokens = sequence.reused_tokens
    try:
        while not sequence.done:
            for _, delta in batch.step():
                stats.seconds = time.perf_counter() - start
                stats.seconds_to_first_token = stats.seconds_to_first_token or stats.seconds
                stats.new_tokens = len(sequence.new_ids)
                stats.count_drafts([sequence])
                if sequence.error is not None:
                    if delta.token_ids:
                        yield delta._replace(finish_reason=None)
                    raise sequence.error
                yield delta
                if not is_current():
                    raise RuntimeError("another generation was started: run one at a time, or use two engines")
    finally:
        if sequence in batch.sequences:
            batch.drop(sequence)
