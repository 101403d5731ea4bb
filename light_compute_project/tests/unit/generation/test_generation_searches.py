"""Beam search finds the most probable sequence; contrastive search follows its formula."""

import itertools

import pytest
import torch

from litgpt_core.core.errors import ConfigError
from litgpt_core.generation.beam_search import beam_search
from litgpt_core.generation.contrastive_search import choose, contrastive_search
from litgpt_core.generation.engine import Engine
from litgpt_core.generation.sampling import GREEDY

FEW = {"vocab_size": 6, "padding_multiple": 8}


@pytest.fixture
def small_engine(build, tokenizer, monkeypatch):
    """A vocabulary of 6, so that all texts can be tried."""
    monkeypatch.setattr(tokenizer, "vocab_size", 6)
    monkeypatch.setattr(tokenizer, "eos_id", 5)
    return Engine(build(**FEW), tokenizer)


def logprob_of(model, prompt, ids, *, vocab_size):
    with torch.no_grad():
        logits = model(torch.tensor([[*prompt, *ids]]))[0, :, :vocab_size]
    logprobs = torch.log_softmax(logits.double(), dim=-1)
    return sum(float(logprobs[len(prompt) - 1 + place, token]) for place, token in enumerate(ids))


@pytest.mark.parametrize("length_penalty", [0.0, 1.0])
def test_a_wide_search_finds_the_best_of_all_sequences(small_engine, length_penalty):
    prompt, limit = [1, 2], 4
    every = []
    for length in range(limit + 1):
        for ids in itertools.product(range(5), repeat=length):
            whole = (*ids, 5) if length < limit else ids
            total = logprob_of(small_engine.model, prompt, whole, vocab_size=6)
            every.append((total / max(1, len(whole)) ** length_penalty, ids))
    best = beam_search(small_engine, prompt, max_new_tokens=limit, beams=700, length_penalty=length_penalty, results=5)
    expected = sorted(every, reverse=True)[:5]
    assert [beam.token_ids for beam in best] == [ids for _, ids in expected]
    assert [beam.score for beam in best] == pytest.approx([score for score, _ in expected], abs=1e-4)


@pytest.mark.parametrize("compile", ["auto", "false"])
def test_scores_are_the_models_own_log_probabilities(build, tokenizer, compile):
    engine = Engine(build(), tokenizer, compile=compile)
    found = beam_search(engine, [65, 66], max_new_tokens=12, beams=4, results=4, stop_ids=())
    assert len({beam.token_ids for beam in found}) == 4
    for beam in found:
        exact = logprob_of(engine.model, [65, 66], beam.token_ids, vocab_size=256)
        assert beam.logprob == pytest.approx(exact, abs=1e-3)
        assert not beam.finished and len(beam.token_ids) == 12
    greedy = engine.generate([65, 66], max_new_tokens=12, sampling=GREEDY, stop_ids=())
    assert beam_search(engine, [65, 66], max_new_tokens=12, beams=1, stop_ids=())[0].token_ids == tuple(greedy)
    assert found[0].logprob >= logprob_of(engine.model, [65, 66], greedy, vocab_size=256) - 1e-3


def test_a_stop_id_ends_a_sequence_and_counts(small_engine):
    with torch.no_grad():
        small_engine.model.lm_head.bias = torch.nn.Parameter(torch.zeros(8))
        small_engine.model.lm_head.bias[5] = 1e4
    best = beam_search(small_engine, [1], max_new_tokens=6, beams=3)[0]
    assert best.token_ids == () and best.finished and best.logprob == pytest.approx(0, abs=1e-6)


def slow_contrastive(model, prompt, *, alpha, top_k, length, vocab_size):
    ids = list(prompt)
    for _ in range(length):
        hidden = model.hidden(torch.tensor([ids]))[0]
        probabilities, candidates = torch.softmax(model.head(hidden[-1])[:vocab_size].float(), dim=-1).topk(top_k)
        states = torch.stack([model.hidden(torch.tensor([[*ids, int(token)]]))[0, -1] for token in candidates])
        cosines = torch.nn.functional.cosine_similarity(states[:, None], hidden[None], dim=-1).amax(dim=-1)
        ids.append(int(candidates[((1 - alpha) * probabilities - alpha * cosines).argmax()]))
    return ids[len(prompt) :]


@pytest.mark.parametrize("alpha", [0.0, 0.4, 0.9])
def test_contrastive_search_is_its_formula(build, tokenizer, alpha):
    engine = Engine(build(n_query_groups=1), tokenizer)
    found = contrastive_search(engine, [65, 66, 67], max_new_tokens=15, alpha=alpha, top_k=4, stop_ids=())
    with torch.no_grad():
        expected = slow_contrastive(engine.model, [65, 66, 67], alpha=alpha, top_k=4, length=15, vocab_size=256)
    assert found == expected
    if alpha == 0:
        assert found == engine.generate([65, 66, 67], max_new_tokens=15, sampling=GREEDY, stop_ids=())


def test_candidates_unlike_the_context_are_preferred():
    seen = torch.tensor([[1.0, 0.0]])
    states = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    assert choose(torch.tensor([0.6, 0.4]), states, seen, alpha=0.0) == 0
    assert choose(torch.tensor([0.6, 0.4]), states, seen, alpha=0.5) == 1


def test_contrastive_search_stops(build, tokenizer):
    engine = Engine(build(), tokenizer)
    free = contrastive_search(engine, [65], max_new_tokens=10, stop_ids=())
    stop = free[4]
    assert contrastive_search(engine, [65], max_new_tokens=10, stop_ids=[stop]) == free[: free.index(stop)]
    assert engine.model.transformer.cache_length is None


def test_invalid_searches_are_refused(build, tokenizer):
    engine = Engine(build(), tokenizer)
    with pytest.raises(ConfigError, match="not a valid search"):
        beam_search(engine, [1], max_new_tokens=5, beams=2, results=3)
    with pytest.raises(ConfigError, match="window of 24"):
        beam_search(engine, [1] * 20, max_new_tokens=5)
    with pytest.raises(ConfigError, match="alpha=2"):
        contrastive_search(engine, [1], max_new_tokens=5, alpha=2)
    with pytest.raises(ConfigError, match="window of 24"):
        contrastive_search(engine, [1] * 20, max_new_tokens=5)
