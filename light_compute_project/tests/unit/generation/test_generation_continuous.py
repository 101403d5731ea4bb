"""Texts join and leave a running batch, and none of them notices."""

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
def test_texts_that_come_and_go_are_what_they_are_alone(build, tokenizer, compile, prefill):
    engine = Engine(build(), tokenizer, compile=compile)
    alone = [[token for piece in engine.stream(one) for token in piece.token_ids] for one in REQUESTS]
    texts = [engine.live_text(one) for one in REQUESTS]
    waiting = list(texts)
    order = random.Random(prefill)
    with engine.open_batch(n_slots=3, prefill=prefill) as batch:
        while waiting or batch.texts:
            while waiting and batch.has_room and order.random() < 0.5:
                batch.add(waiting.pop(0))
            batch.step()
    assert [text.new_ids for text in texts] == alone
    assert [text.finish_reason for text in texts] == ["length"] * len(texts)
    assert len(texts[6].new_ids) == 4, "20 prompt tokens in a window of 24, and no sliding"


def test_a_dropped_text_frees_its_place(build, tokenizer):
    engine = Engine(build(), tokenizer)
    expected = engine.generate([1, 2, 3], max_new_tokens=10, sampling=GREEDY, stop_ids=())
    with engine.open_batch(n_slots=1) as batch:
        first = engine.live_text(REQUESTS[1])
        batch.add(first)
        batch.step()
        assert not batch.has_room
        batch.drop(first)
        assert batch.has_room
        second = engine.live_text(request([1, 2, 3], max_new_tokens=10, sampling=GREEDY))
        batch.add(second)
        while batch.texts:
            batch.step()
    assert second.new_ids == expected
    assert not first.done


def test_a_text_that_breaks_leaves_its_neighbours_alone(build, tokenizer):
    model = build()
    with torch.no_grad():
        model.transformer.wte.weight[200] = float("nan")
    engine = Engine(model, tokenizer)
    good = request([1, 2, 3], max_new_tokens=10)
    expected = engine.generate([1, 2, 3], max_new_tokens=10, sampling=good.sampling, seed=3, stop_ids=())
    with pytest.raises(CheckpointError, match="NaN"):
        engine.generate([200], max_new_tokens=3)
    texts = [engine.live_text(good), engine.live_text(request([200]))]
    with engine.open_batch(n_slots=2) as batch:
        for text in texts:
            batch.add(text)
        while batch.texts:
            batch.step()
    assert texts[0].new_ids == expected
    assert texts[1].finish_reason == "error" and isinstance(texts[1].error, CheckpointError)


def test_stop_texts_end_a_text_and_stay_out_of_it(build, tokenizer):
    engine = Engine(build(), tokenizer)
    free = engine.generate_text("x", max_new_tokens=40, seed=2, stop_ids=())
    stop = free[10:12]
    cut = free[: free.index(stop)]
    assert engine.generate_text("x", max_new_tokens=40, seed=2, stop_ids=(), stop=[stop, "never there"]) == cut
    assert "".join(engine.generate_text_stream("x", max_new_tokens=40, seed=2, stop_ids=(), stop=[stop])) == cut
    pieces = list(engine.stream(request(engine.encode_prompt("x"), max_new_tokens=40, seed=2, stop=(stop,))))
    assert pieces[-1].finish_reason == "stop"


def test_log_probabilities_are_the_models_own(build, tokenizer):
    engine = Engine(build(), tokenizer)
    asked = request([65, 66], logprobs=3, max_new_tokens=6, sampling=SamplingSettings(temperature=2.0, top_k=9))
    pieces = [piece for piece in engine.stream(asked) if piece.token_ids]
    ids = [piece.token_ids[0] for piece in pieces]
    with torch.no_grad():
        exact = torch.log_softmax(engine.model(torch.tensor([[65, 66, *ids]]))[0, :, :256], dim=-1)[1:]
    for row, piece in enumerate(pieces):
        found = piece.logprobs[0]
        assert found.token_id == ids[row]
        assert found.logprob == pytest.approx(float(exact[row, ids[row]]), abs=1e-3)
        assert [token for token, _ in found.top] == exact[row].topk(3).indices.tolist()
    plain = list(engine.stream(dataclasses.replace(asked, logprobs=None)))
    assert [token for piece in plain for token in piece.token_ids] == ids
    assert all(not piece.logprobs for piece in plain)


def test_a_cache_takes_sequences_at_their_own_positions(build):
    cache = KVCache((3, 1, 6, 2), (3, 1, 6, 2))
    cache.rows = torch.tensor([2, 0])
    new = torch.arange(8.0).view(2, 1, 2, 2)
    keys, _ = cache(torch.tensor([[4, 5], [0, 1]]), new, new)
    assert torch.equal(cache.k[2, 0, 4:6], new[0, 0]) and torch.equal(cache.k[0, 0, :2], new[1, 0])
    assert cache.k[1].abs().sum() == 0
    assert torch.equal(keys, cache.k[[2, 0]])
