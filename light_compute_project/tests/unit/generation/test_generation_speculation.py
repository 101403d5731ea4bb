"""Speculative decoding changes no token, whatever is drafted; drafts follow what was seen and what passes cost."""

import random

import pytest
import torch

from litgpt_core.generation.decoder import Decoder, Feed
from litgpt_core.generation.engine import Engine
from litgpt_core.generation.kernel import KernelDecoder
from litgpt_core.generation.request import GenerationRequest
from litgpt_core.generation.sampling import GREEDY, SamplingSettings
from litgpt_core.generation.speculation import MOST, DraftBudget, NgramDraft
from litgpt_core.generation.torch_decoder import TorchDecoder

REPEATING = [1, 2, 3, 4, 5, 1, 2, 3, 4, 5, 1, 2]
SAMPLED = SamplingSettings(temperature=0.9, top_k=40)


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drafts of five tokens, whatever they cost."""
    monkeypatch.setattr(DraftBudget, "length", lambda self, rate, *, n_sequences: 5 * (n_sequences in self._step_s))


@pytest.fixture
def half_right(monkeypatch: pytest.MonkeyPatch, always: None) -> None:
    """Drafts that are often right: the true continuation, with some tokens replaced."""
    rng = random.Random(7)

    def draft(self, ids, n):
        true = TRUE.get(tuple(ids[:4]), [])[len(ids) : len(ids) + n]
        return [token if rng.random() < 0.7 else (token + 1) % 256 for token in true]

    monkeypatch.setattr(NgramDraft, "draft", draft)


TRUE: dict[tuple[int, ...], list[int]] = {}


@pytest.mark.parametrize("sampling", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
@pytest.mark.parametrize("options", [{}, {"packed_weights": True}, {"kv_cache": "int8"}], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_tokens_are_the_same_and_drafts_save_passes(
    build, tokenizer, kernel, half_right, options, sampling, dtype, monkeypatch
):
    model = build(block_size=64).to(dtype)
    settings = {"max_new_tokens": 90, "sampling": sampling, "seed": 5, "stop_ids": ()}  # through the end of the window
    prompts = [REPEATING, list(range(50, 60)), [7, 8, 9, 10]]
    plain = Engine(model, tokenizer, **options)
    expected = [plain.generate(prompt, **settings) for prompt in prompts]
    batch = plain.generate_batch(prompts, **settings)
    TRUE.clear()
    for prompt, new in zip(prompts, expected, strict=True):
        TRUE[tuple(prompt[:4])] = [*prompt, *new]
    engine = Engine(model, tokenizer, speculative="ngram", **options)
    for prompt, new in zip(prompts, expected, strict=True):
        assert engine.generate(prompt, **settings) == new
        assert 0 < engine.stats.accepted_tokens < engine.stats.drafted_tokens
        assert f"{engine.stats.accepted_tokens} of {engine.stats.drafted_tokens} drafted" in engine.stats.summary()
    assert engine.generate_batch(prompts, **settings) == batch
    assert engine.stats.accepted_tokens > 0


def test_the_end_of_a_sequence_is_where_it_was(build, tokenizer, kernel, half_right):
    """Stop ids, stop strings and the limit end a sequence inside a verified draft, and the cache stays right."""
    model = build(block_size=64)
    free = Engine(model, tokenizer).generate(REPEATING, max_new_tokens=40, sampling=SAMPLED, seed=5, stop_ids=())
    TRUE[tuple(REPEATING[:4])] = [*REPEATING, *free]
    for stop_at in (5, 11, 17):
        settings = {"max_new_tokens": 40, "sampling": SAMPLED, "seed": 5, "stop_ids": (free[stop_at],)}
        expected = Engine(model, tokenizer).generate(REPEATING, **settings)
        engine = Engine(model, tokenizer, speculative="ngram", keep_cache=True)
        assert engine.generate(REPEATING, **settings) == expected
        longer = [*REPEATING, *expected, 33]
        again = Engine(model, tokenizer).generate(longer, **settings)
        assert engine.generate(longer, **settings) == again, "the next turn reuses what verified drafts left behind"
    with_logprobs = GenerationRequest(
        prompt_ids=tuple(REPEATING), max_new_tokens=40, sampling=SAMPLED, seed=5, stop_ids=(), logprobs=0
    )
    engine = Engine(model, tokenizer, speculative="ngram")
    assert [token for delta in engine.stream(with_logprobs) for token in delta.token_ids] == free
    assert engine.stats.drafted_tokens == 0, "log-probabilities are wanted of every token"


@pytest.mark.parametrize("packed_weights", [False, True])
def test_logits_after_every_token_are_those_of_one_token_at_a_time(build, kernel, packed_weights):
    model = build(block_size=64)
    feeds = [Feed(0, 0, list(range(40))), Feed(1, 0, [5, 6, 7])]
    found = []
    for feed_all in (KernelDecoder.feed_all, Decoder.feed_all):
        decoder = KernelDecoder(model, packed_weights=packed_weights)
        decoder.start(n_sequences=2, length=64)
        found.append(feed_all(decoder, feeds).clone())
        decoder.finish()
    assert found[0].shape == (43, model.config.padded_vocab_size) and torch.equal(*found)


def test_a_decoder_whose_tokens_depend_on_others_drafts_nothing(build, tokenizer, always, caplog):
    engine = Engine(build(), tokenizer, compile="false", speculative="ngram")
    assert not TorchDecoder.tokens_are_independent
    plain = Engine(build(), tokenizer, compile="false").generate(REPEATING, max_new_tokens=30, sampling=GREEDY)
    assert engine.generate(REPEATING, max_new_tokens=30, sampling=GREEDY) == plain
    assert engine.stats.drafted_tokens == 0 and "needs the CPU kernel" in caplog.text


def test_drafts_are_what_followed_last():
    drafts = NgramDraft()
    assert drafts.draft([1, 2], 3) == []
    assert drafts.draft([1, 2, 9, 1, 2], 3) == [9, 1, 2]
    ids = [1, 2, 9, 1, 2, 8, 7, 1, 2]
    assert drafts.draft(ids, 2) == [8, 7], "the latest occurrence"
    assert drafts.draft([*ids, 9, 1, 2], 2) == [8, 7], "2 9 1 2 has not occurred, 9 1 2 has"
    assert NgramDraft().draft([4, 4, 4], 5) == [4] * 5, "a draft beyond the end repeats itself"
    assert NgramDraft().draft([1, 2, 3, 4], 5) == []


def test_a_longer_draft_pays_if_a_pass_costs_little_more():
    budget = DraftBudget()
    assert budget.length(0.9, n_sequences=1) == 0, "nothing was measured"
    budget.stepped(0.010, n_sequences=1)
    assert budget.length(0.98, n_sequences=1) == MOST
    for _ in range(50):
        budget.verified(0.010 + 8 * 0.001, n_sequences=1, n_drafted=8)
    lengths = [budget.length(rate, n_sequences=1) for rate in (0.0, 0.3, 0.6, 0.9, 0.98)]
    assert lengths == sorted(lengths) and lengths[0] == 0 and lengths[2] >= 2 and lengths[-1] == MOST
    for _ in range(50):
        budget.verified(0.010 + 8 * 0.010, n_sequences=1, n_drafted=8)
    assert budget.length(0.95, n_sequences=1) == 0, "a drafted token costs as much as a step"


def test_the_estimated_rate_follows_what_was_right_and_recovers():
    drafts = NgramDraft()
    for _ in range(100):
        drafts.verified(drafted=4, accepted=4)
    assert drafts.rate > 0.95
    for _ in range(100):
        drafts.verified(drafted=4, accepted=0)
    assert drafts.rate < 0.05 and (drafts.drafted, drafts.accepted) == (800, 400)
    for _ in range(300):
        drafts.skipped()
    assert drafts.rate > 0.5
