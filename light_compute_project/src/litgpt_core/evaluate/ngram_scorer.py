"""Scorers whose probabilities are known: unigram and bigram models of the training tokens, and the uniform one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from litgpt_core.data.ngram import BigramModel
from litgpt_core.evaluate.scorer import Floats, Scorer, Span
from litgpt_core.tokenizers.base import Tokenizer

NO_LIMIT = 1 << 40


class NgramScorer(Scorer):
    """One of the two models of `data/ngram.py`.

    Args:
        counts: Of the training tokens.
        order: 1 for the unigram model, 2 for the bigram model.
        tokenizer: Whose ids were counted.
    """

    def __init__(self, counts: BigramModel, tokenizer: Tokenizer, *, order: Literal[1, 2]) -> None:
        self.counts, self.tokenizer, self.order = counts, tokenizer, order
        self.name = {1: "unigram", 2: "bigram"}[order]
        self.block_size = NO_LIMIT

    def _span_logprobs(self, spans: Sequence[Span]) -> list[Floats]:
        if not spans:
            return []
        targets = np.concatenate([span.ids[span.first :] for span in spans])
        if self.order == 1:
            scores = self.counts.unigram(targets)
        else:
            scores = self.counts.bigram(np.concatenate([span.ids[span.first - 1 : -1] for span in spans]), targets)
        ends = np.cumsum([len(span.ids) - span.first for span in spans])
        return [np.asarray(part) for part in np.split(np.log(scores), ends[:-1])]


class UniformScorer(Scorer):
    """Every id of the tokenizer has probability 1 / vocab_size."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer, self.name, self.block_size = tokenizer, "uniform", NO_LIMIT

    def _span_logprobs(self, spans: Sequence[Span]) -> list[Floats]:
        return [np.full(len(span.ids) - span.first, -np.log(self.tokenizer.vocab_size)) for span in spans]
