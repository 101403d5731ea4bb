"""Sequences join and leave a running batch without affecting each other."""

import dataclasses
import random

import pytest
import torch

from litgpt_core.core.errors import CheckpointError
from litgpt_core.generation.engine import Engine
from litgpt_core.generation.request import GenerationRequest
from litgpt_core.generation.sampling import GREEDY, SamplingSettings
from litgpt_core.model.kv_cache import KVCache


def request(prompt, **settings):
    words = {"max_new_tokens": 20, "seed": 3, "stop_ids": (), "sampling": SamplingSettings(temperature=0.9, top_k=40)}
    return GenerationRequest(prompt_ids=tuple(prompt), **(words | settings))


REQUESTS = [
    request([65], max_new_tokens=3),
    request(range(20), seed=4, max_new_tokens=40),
    request([1, 2, 3, 4], sampling=GREEDY),
    request(range(100, 130), seed=5),
    request([9, 8], sampling=SamplingSettings(repetition_penalty=1.3, presence_penalty=0.2), max_new_tokens=30),
    request([7], max_new_tokens=0),
    request(range(40, 60), overflow="stop", max_new_tokens=99),
    request([11, 12, 13], max_new_tokens=1),
]


@pytest.mark.parametrize("compile", ["auto", "false"])
@pytest.mark.parametrize("prefill", [None, 3])
def test_sequences_that_join_and_leave_equal_those_generated_alone(build, tokenizer, compile, prefill):
    engine = Engine(build(), tokenizer, compile=compile)
    alone = [[token for delta in engine.stream(one) for token in delta.token_ids] for one in REQUESTS]
    sequences = [engine.new_sequence(one) for one in REQUESTS]
    waiting = list(sequences)
    order = random.Random(prefill)
    with engine.open_batch(n_slots=3, prefill=prefill) as batch:
        while waiting or batch.sequences:
            while waiting and batch.has_room and order.random() < 0.5:
                batch.add(waiting.pop(0))
            batch.step()
    assert [sequence.new_ids for sequence in sequences] == alone
    assert [sequence.finish_reason for sequence in sequences] == ["length"] * len(sequences)
    assert len(sequences[6].new_ids) == 4, "20 prompt tokens in a window of 24, and no sliding"


def test_a_dropped_sequence_frees_its_slot(build, tokenizer):
    engine = Engine(build(), tokenizer)
    expected = engine.generate([1, 2, 3], max_new_tokens=10, sampling=GREEDY, stop_ids=())
    with engine.open_batch(n_slots=1) as batch:
        first = engine.new_sequence(REQUESTS[1])
        batch.add(first)
        batch.step()
        assert not batch.has_room
        batch.drop(first)
        assert batch.has_room
        second = engine.new_sequence(request([1, 2, 3], max_new_tokens=10, sampling=GREEDY))
        batch.add(second)
        while batch.sequences:
            batch.step()
    assert second.new_ids == expected
    assert not first.done


def test_a_failing_sequence_does_not_affect_the_others(build, tokenizer):
    model = build()
    with torch.no_grad():
        model.transformer.wte.weight[200] = float("nan")
    engine = Engine(model, tokenizer)
    good = request([1, 2, 3], max_new_tokens=10)
    expected = engine.generate([1, 2, 3], max_new_tokens=10, sampling=good.sampling, seed=3, stop_ids=())
    with pytest.raises(CheckpointError, match="NaN"):
        engine.generate([200], max_new_tokens=3)
    sequences = [engine.new_sequence(good), engine.new_sequence(request([200]))]
    with engine.open_batch(n_slots=2) as batch:
        for text in sequences:
            batch.add(text)
        while batch.sequences:
            batch.step()
    assert sequences[0].new_ids == expected
    assert sequences[1].finish_reason == "error" and isinstance(sequences[1].error, CheckpointError)


def test_stop_strings_end_a_text_and_are_not_part_of_it(build, tokenizer):
    engine = Engine(build(), tokenizer)
    free = engine.generate_text("x", max_new_tokens=40, seed=2, stop_ids=())
    stop = free[10:12]
    cut = free[: free.index(stop)]
    assert engine.generate_text("x", max_new_tokens=40, seed=2, stop_ids=(), stop=[stop, "never there"]) == cut
    assert "".join(engine.generate_text_stream("x", max_new_tokens=40, seed=2, stop_ids=(), stop=[stop])) == cut
    deltas = list(engine.stream(request(engine.encode_prompt("x"), max_new_tokens=40, seed=2, stop=(stop,))))
    assert deltas[-1].finish_reason == "stop"


def test_log_probabilities_are_the_models_own(build, tokenizer):
    engine = Engine(build(), tokenizer)
    asked = request([65, 66], logprobs=3, max_new_tokens=6, sampling=SamplingSettings(temperature=2.0, top_k=9))
    deltas = [delta for delta in engine.stream(asked) if delta.token_ids]
    ids = [delta.token_ids[0] for delta in deltas]
    with torch.no_grad():
        exact = torch.log_softmax(engine.model(torch.tensor([[65, 66, *ids]]))[0, :, :256], dim=-1)[1:]
    for row, delta in enumerate(deltas):
        found = delta.logprobs[0]
        assert found.token_id == ids[row]
        assert found.logprob == pytest.approx(float(exact[row, ids[row]]), abs=1e-3)
        assert [token for token, _ in found.top] == exact[row].topk(3).indices.tolist()
    plain = list(engine.stream(dataclasses.replace(asked, logprobs=None)))
    assert [token for delta in plain for token in delta.token_ids] == ids
    assert all(not delta.logprobs for delta in plain)


def test_a_cache_takes_sequences_at_their_own_positions(build):
    cache = KVCache((3, 1, 6, 2), (3, 1, 6, 2))
    cache.first = 1
    new = torch.arange(1.0, 9.0).view(2, 1, 2, 2)
    keys, _ = cache(torch.tensor([[4, 5], [0, 1]]), new, new)
    assert torch.equal(cache.k[1, 0, 4:6], new[0, 0]) and torch.equal(cache.k[2, 0, :2], new[1, 0])
    assert cache.k[0].abs().sum() == 0
    assert torch.equal(keys, cache.k[1:]) and keys.data_ptr() == cache.k[1].data_ptr(), "read in place"
