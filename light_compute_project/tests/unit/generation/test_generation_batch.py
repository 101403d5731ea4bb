"""A batch of sequences equals the sequences generated one by one."""

import copy

import pytest
import torch

from litgpt_core.generation.engine import Engine
from litgpt_core.generation.reference import generate_reference
from litgpt_core.generation.sampling import GREEDY, SamplingSettings

PROMPTS = [[65], [1, 2, 3, 4], list(range(20)), [9, 8, 7, 6], list(range(100, 130))]
SAMPLED = SamplingSettings(temperature=0.9, top_k=40)


@pytest.mark.parametrize("compile", ["auto", "false"])
@pytest.mark.parametrize("sampling", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
def test_a_batch_equals_its_sequences(build, tokenizer, compile, sampling):
    """Unequal prompts, one longer than the window of 24; every sequence slides."""
    engine = Engine(build(), tokenizer, compile=compile)
    settings = {"max_new_tokens": 40, "sampling": sampling, "stop_ids": ()}
    alone = [engine.generate(prompt, seed=5 + i, **settings) for i, prompt in enumerate(PROMPTS)]
    assert engine.generate_batch(PROMPTS, seed=5, **settings) == alone
    assert len({tuple(text) for text in alone}) == len(PROMPTS)
    assert engine.stats.new_tokens == 40 * len(PROMPTS)
    assert engine.stats.n_sequences == len(PROMPTS)
    assert engine.stats.tokens_per_second > 0


@pytest.mark.parametrize("compile", ["auto", "false"])
def test_each_sequence_ends_at_its_own_stop_id(build, tokenizer, compile):
    engine = Engine(build(), tokenizer, compile=compile)
    prompts = [[65, 66], [67, 68], [69, 70]]
    settings = {"max_new_tokens": 20, "sampling": GREEDY}
    free = engine.generate_batch(prompts, stop_ids=(), **settings)
    stop = free[1][5]
    expected = [text[: text.index(stop)] if stop in text else text for text in free]
    assert engine.generate_batch(prompts, stop_ids=[stop], **settings) == expected
    assert len(expected[1]) <= 5
    assert engine.stats.new_tokens == sum(map(len, expected))


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("n_sequences", [1, 4])
def test_greedy_bf16_equals_the_reference_with_rounded_weights(build, tokenizer, n_sequences):
    model = build(parallel_residual=False, position_embedding="learned").to(torch.bfloat16)
    exact = copy.deepcopy(model).float()
    prompts = [[65 + i, 3, 9 * i] for i in range(n_sequences)]
    found = Engine(model, tokenizer).generate_batch(prompts, max_new_tokens=40, sampling=GREEDY, stop_ids=())
    for prompt, text in zip(prompts, found, strict=True):
        assert text == generate_reference(exact, prompt, max_new_tokens=40, sampling=GREEDY, vocab_size=256)
        assert len(set(text)) > 3


def test_empty_requests_give_empty_results(build, tokenizer):
    engine = Engine(build(), tokenizer)
    assert engine.generate_batch([], max_new_tokens=5) == []
    assert engine.generate_batch([[1], [2]], max_new_tokens=0) == [[], []]
