"""What a unigram and a bigram model score on the validation split: the two numbers any network must beat.

Not a generator and not a smoother zoo: two models, fitted on the training tokens, in nats per validation token.

    unigram   p1(w)   = (c(w) + 1) / (N + V)                                        add-one, so that unseen tokens score
    bigram    p(w|v)  = max(c(v, w) - D, 0) / c(v)  +  D * n(v) / c(v) * p1(w)      D = 0.75
              p(w|v)  = p1(w)                                                       where c(v) = 0

N training tokens, V vocabulary size, c counts, c(v) the bigrams that begin with v, n(v) the different tokens seen after
v. This is interpolated absolute discounting (Ney, Essen and Kneser 1994; Chen and Goodman 1999, section 2.6). Both sum
to one over w.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from litgpt_core.data.order import Ints

DISCOUNT = 0.75
_AT_ONCE = 1 << 22  # tokens whose 64-bit keys are in memory together

Tokens = npt.NDArray[np.integer]


@dataclass(frozen=True)
class BigramModel:
    """Counts of the training tokens, from which both probabilities follow."""

    unigrams: Ints
    """c(w), shape (V,)."""
    bigram_keys: Ints
    """v * V + w of every bigram seen, sorted, shape (K,)."""
    bigram_counts: Ints
    """c(v, w) of these, shape (K,)."""
    begins: Ints
    """c(v), shape (V,)."""
    followers: Ints
    """n(v), shape (V,)."""

    @classmethod
    def fit(cls, tokens: Tokens, *, vocab_size: int) -> BigramModel:
        """Count `tokens`, shape (N,), values in [0, vocab_size). Memory grows with the different bigrams, not N."""
        unigrams = np.zeros(vocab_size, dtype=np.int64)
        keys, counts = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
        for begin in range(0, len(tokens), _AT_ONCE):
            part = tokens[begin : begin + _AT_ONCE + 1].astype(
                np.int64
            )  # one more, so that no bigram is lost between parts
            unigrams += np.bincount(part[:_AT_ONCE], minlength=vocab_size)
            new_keys, new_counts = np.unique(part[:-1] * vocab_size + part[1:], return_counts=True)
            keys, counts = _merge(keys, counts, new_keys, new_counts.astype(np.int64))
        before = keys // vocab_size
        begins = np.bincount(before, weights=counts, minlength=vocab_size).astype(np.int64)
        followers = np.bincount(before, minlength=vocab_size).astype(np.int64)
        return cls(unigrams, keys, counts, begins, followers)

    @property
    def vocab_size(self) -> int:
        """V."""
        return len(self.unigrams)

    def unigram(self, tokens: Tokens) -> npt.NDArray[np.float64]:
        """p1 of each token, same shape."""
        return np.asarray((self.unigrams[tokens] + 1) / (self.unigrams.sum() + self.vocab_size), dtype=np.float64)

    def bigram(self, previous: Tokens, tokens: Tokens) -> npt.NDArray[np.float64]:
        """p(token | previous) of each pair, same shape."""
        pairs = previous.astype(np.int64) * self.vocab_size + tokens.astype(np.int64)
        seen = np.zeros(pairs.shape, dtype=np.float64)
        if len(self.bigram_keys):
            found = np.minimum(np.searchsorted(self.bigram_keys, pairs), len(self.bigram_keys) - 1)
            seen = np.where(self.bigram_keys[found] == pairs, self.bigram_counts[found], 0).astype(np.float64)
        begins = self.begins[previous]
        left_over = np.where(begins > 0, DISCOUNT * self.followers[previous] / np.maximum(begins, 1), 1.0)
        return np.asarray(np.maximum(seen - DISCOUNT, 0) / np.maximum(begins, 1) + left_over * self.unigram(tokens))


@dataclass(frozen=True)
class ReferenceLosses:
    """Mean negative log probability in nats per target of the validation split."""

    unigram: float
    bigram: float


def reference_losses(train: Tokens, val: Tokens, *, vocab_size: int) -> ReferenceLosses:
    """Fit on `train`, score the targets `val[1:]`, each given the token before it: the same targets the network is
    scored on.

    Args:
        train, val: Shapes (N,) and (M,), M >= 2, values in [0, vocab_size); memory maps are read in chunks.
    """
    model = BigramModel.fit(train, vocab_size=vocab_size)
    unigram = bigram = 0.0
    for begin in range(0, len(val) - 1, _AT_ONCE):
        part = val[begin : begin + _AT_ONCE + 1]
        unigram -= float(np.log(model.unigram(part[1:])).sum())
        bigram -= float(np.log(model.bigram(part[:-1], part[1:])).sum())
    targets = len(val) - 1
    return ReferenceLosses(unigram=unigram / targets, bigram=bigram / targets)


def _merge(keys: Ints, counts: Ints, new_keys: Ints, new_counts: Ints) -> tuple[Ints, Ints]:
    if not len(keys):
        return new_keys, new_counts
    merged, index = np.unique(np.concatenate([keys, new_keys]), return_inverse=True)
    summed = np.bincount(index, weights=np.concatenate([counts, new_counts]), minlength=len(merged))
    return merged, summed.astype(np.int64)
