"""Reference losses: equal to a brute-force count, proper distributions, quick on millions of tokens."""

from __future__ import annotations

import itertools
import math
import time
from collections import Counter

import numpy as np
import pytest

from litgpt_core.data import ngram
from litgpt_core.data.ngram import BigramModel, reference_losses


def slow_losses(train: list[int], val: list[int], *, vocab_size: int) -> tuple[float, float]:
    ones, pairs = Counter(train), Counter(itertools.pairwise(train))
    unigram = bigram = 0.0
    for before, token in itertools.pairwise(val):
        p1 = (ones[token] + 1) / (len(train) + vocab_size)
        begins = sum(count for (v, _), count in pairs.items() if v == before)
        kinds = sum(1 for v, _ in pairs if v == before)
        p2 = p1 if not begins else max(pairs[before, token] - 0.75, 0) / begins + 0.75 * kinds / begins * p1
        unigram -= math.log(p1)
        bigram -= math.log(p2)
    return unigram / (len(val) - 1), bigram / (len(val) - 1)


@pytest.mark.parametrize(("length", "vocab_size"), [(2, 5), (60, 3), (300, 40)])
@pytest.mark.parametrize("at_once", [7, 1 << 22])
def test_equals_brute_force(length: int, vocab_size: int, at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ngram, "_AT_ONCE", at_once)
    random = np.random.default_rng(length)
    train = random.integers(0, vocab_size, length).astype(np.uint16)
    val = random.integers(0, vocab_size, 50).astype(np.uint16)
    losses = reference_losses(train, val, vocab_size=vocab_size)
    assert (losses.unigram, losses.bigram) == pytest.approx(
        slow_losses(train.tolist(), val.tolist(), vocab_size=vocab_size), rel=1e-12
    )


def test_both_models_sum_to_one() -> None:
    vocab_size = 30
    tokens = np.random.default_rng(0).integers(0, 20, 500)  # ten tokens are never seen
    model = BigramModel.fit(tokens, vocab_size=vocab_size)
    words = np.arange(vocab_size)
    assert model.unigram(words).sum() == pytest.approx(1, abs=1e-12)
    for before in range(vocab_size):
        assert model.bigram(np.full(vocab_size, before), words).sum() == pytest.approx(1, abs=1e-12)


def test_a_predictable_text_scores_near_zero_with_two_tokens_of_context() -> None:
    tokens = np.tile(np.arange(10), 1000)
    losses = reference_losses(tokens, tokens[:500], vocab_size=10)
    assert losses.unigram == pytest.approx(math.log(10), abs=1e-3)
    assert losses.bigram < 0.01


def test_four_million_tokens_take_seconds() -> None:
    tokens = (np.random.default_rng(0).zipf(1.3, 4_000_000) % 4096).astype(np.uint16)
    start = time.perf_counter()
    reference_losses(tokens, tokens[:200_000], vocab_size=4096)
    assert time.perf_counter() - start < 5
