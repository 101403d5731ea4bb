"""The interface that everything here measures with: log probabilities of token ids, by a network or by an n-gram model.

    Scorer
      |- GPTScorer       a checkpoint (gpt_scorer)
      |- NgramScorer     unigram and bigram models of the training tokens (ngram_scorer)
      '- UniformScorer   every token equally probable: exactly chance (ngram_scorer)

A scorer answers two questions: log p of the last ids of a sequence (`span_logprobs`), and log p of several
continuations of one context (`choice_logprobs`). The second has a slow implementation here, which scores each
continuation together with its context; `GPTScorer` computes the context once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from litgpt_core.core.errors import DataError
from litgpt_core.tokenizers.base import Tokenizer

Floats = npt.NDArray[np.float64]
Ids = npt.NDArray[np.int64]


class Span(NamedTuple):
    """A sequence whose ids from `first` on are scored, each given all ids before it in the sequence."""

    ids: Ids
    """(T,), at most block_size + 1."""
    first: int
    """At least 1: the first id is only ever context."""


class Continuations(NamedTuple):
    """Several continuations of one context."""

    context: Ids
    """At least one id; `Scorer.start_id` where there is no text."""
    choices: tuple[Ids, ...]
    """At least one id each."""


class Scorer(ABC):
    """Log probabilities in nats of token ids.

    Attributes:
        name: For tables.
        tokenizer: Turns text into the ids that are scored.
        block_size: Most ids that are seen at once.
    """

    name: str
    tokenizer: Tokenizer
    block_size: int

    @property
    def start_id(self) -> int:
        """The id before the first token of a text: bos, or else eos."""
        bos_id = self.tokenizer.bos_id
        return self.tokenizer.eos_id if bos_id is None else bos_id

    def encode(self, text: str) -> Ids:
        """(1 + T,): `start_id`, then the ids of `text`. Raises TokenizerError for text that has no ids."""
        return np.array([self.start_id, *self.tokenizer.encode(text)], dtype=np.int64)

    @abstractmethod
    def _span_logprobs(self, spans: Sequence[Span]) -> list[Floats]:
        """As `span_logprobs`, for spans that are not too long."""

    def span_logprobs(self, spans: Sequence[Span]) -> list[Floats]:
        """For each span, log p of `ids[first:]`: arrays of shape (T - first,), nats.

        Raises:
            DataError: A span is longer than the window.
        """
        for span in spans:
            assert 1 <= span.first <= len(span.ids)
            self.check_length(len(span.ids) - 1)
        return self._span_logprobs(spans)

    def choice_logprobs(self, requests: Sequence[Continuations]) -> list[list[Floats]]:
        """For each request and each of its choices, log p of the choice's ids given the context and the ids before.

        Raises:
            DataError: A context with a choice is longer than the window.
        """
        spans = [
            Span(np.concatenate([request.context, choice]), len(request.context))
            for request in requests
            for choice in request.choices
        ]
        scores = iter(self.span_logprobs(spans))
        return [[next(scores) for _ in request.choices] for request in requests]

    def check_length(self, length: int) -> None:
        """Raise DataError for more than `block_size` ids of context."""
        if length > self.block_size:
            raise DataError(
                f"{length:,} tokens of context for {self.name}, whose window holds {self.block_size:,}",
                needed=f"prompts with their answer of at most {self.block_size:,} tokens",
                fix="shorter prompts, or a model with a larger block_size",
            )
