"""The next turn of a conversation prefills only what is new, and says the same as if all had been prefilled."""

import random

import pytest
import torch

from litgpt_core.generation.cache_slots import LEAST_SHARED, CacheSlots
from litgpt_core.generation.decoder import Feed
from litgpt_core.generation.engine import Engine
from litgpt_core.generation.kernel import KernelDecoder
from litgpt_core.generation.request import GenerationRequest, join_deltas
from litgpt_core.generation.sampling_settings import SamplingSettings

SHAPE = {"block_size": 256}


def request(ids, **settings):
    words = {"max_new_tokens": 20, "seed": 3, "stop_ids": (), "sampling": SamplingSettings(temperature=0.9, top_k=40)}
    return GenerationRequest(prompt_ids=tuple(ids), **(words | settings))


def text(n, *, seed):
    return random.Random(seed).choices(range(256), k=n)


def test_a_slot_with_the_beginning_of_the_prompt_is_taken():
    slots, first, second = CacheSlots(3, keep=True), text(40, seed=1), text(40, seed=2)
    a, _ = slots.take(first)
    b, _ = slots.take(second)
    slots.give_back(a, first)
    slots.give_back(b, second)
    assert slots.take([*second[:30], 7, 7, 7]) == (b, 30)
    assert slots.take(first) == (a, 39), "one token is always fed: its logits are needed"
    assert len(slots) == 1


def test_the_slot_used_least_recently_is_overwritten():
    slots = CacheSlots(2, keep=True)
    for seed in (1, 2):
        slot, _ = slots.take(text(20, seed=seed))
        slots.give_back(slot, text(20, seed=seed))
    assert slots.take(text(20, seed=3)) == (0, 0)
    slots.give_back(0, text(20, seed=3))
    assert slots.take(text(20, seed=1)) == (1, 0), "the first text was overwritten; the second is older than the third"


def test_few_common_tokens_do_not_decide_and_nothing_is_kept_unless_asked():
    slots, start = CacheSlots(2, keep=True), text(LEAST_SHARED - 1, seed=1)
    slots.give_back(slots.take([*start, 1])[0], [*start, 1])
    assert slots.take([*start, 2]) == (1, 0)
    forgetful = CacheSlots(1, keep=False)
    forgetful.give_back(forgetful.take(text(40, seed=1))[0], text(40, seed=1))
    assert forgetful.take(text(40, seed=1)) == (0, 0)
    assert CacheSlots(1, keep=True).take([]) == (0, 0)


FORMS = {"float32": {}, "packed bfloat16": {"packed_weights": True}, "int8 cache": {"kv_cache": "int8"}}


def test_the_kernel_computes_a_token_alike_with_any_others(build, processor):
    """What the reuse rests on, bit for bit: prompts in one go, in parts, and token by token."""
    for form, options in FORMS.items():
        model = build(**SHAPE).to(torch.bfloat16 if options.get("packed_weights") else torch.float32)
        results = []
        for parts in ([60], [23, 37], [1] * 60):
            decoder, ids, at = KernelDecoder(model, **options), text(60, seed=5), 0
            decoder.start(n_sequences=2, length=64)
            for n in parts:
                logits = decoder.feed([Feed(1, at, ids[at : at + n])]).clone()
                at += n
            results.append(logits)
        assert torch.equal(results[0], results[1]) and torch.equal(results[0], results[2]), form


@pytest.mark.parametrize("form", FORMS)
def test_a_conversation_says_the_same_with_and_without_the_cache(build, tokenizer, kernel, form):
    def turns(engine):
        ids, said = text(30, seed=7), []
        for turn in range(4):
            delta = join_deltas(list(engine.stream(request(ids, seed=turn))))
            said.append((delta.token_ids, engine.stats.reused_tokens))
            ids = [*ids, *delta.token_ids, *text(9, seed=turn)]
        return said

    dtype = torch.bfloat16 if form == "packed bfloat16" else torch.float32
    anew = turns(Engine(build(**SHAPE).to(dtype), tokenizer, **FORMS[form]))
    kept = turns(Engine(build(**SHAPE).to(dtype), tokenizer, keep_cache=True, **FORMS[form]))
    assert [ids for ids, _ in kept] == [ids for ids, _ in anew]
    assert [reused for _, reused in anew] == [0, 0, 0, 0]
    assert [reused for _, reused in kept] == [0, 49, 78, 107], "all but the last token of an answer, which was not fed"


def test_other_generations_in_between_and_a_reader_that_leaves(build, tokenizer, kernel):
    engine, prompt = Engine(build(**SHAPE), tokenizer, keep_cache=True), text(40, seed=1)
    expected = Engine(build(**SHAPE), tokenizer).generate(prompt, max_new_tokens=12, seed=1)
    stream = engine.generate_stream(prompt, max_new_tokens=12, seed=1)
    assert [next(stream), next(stream)] == expected[:2]
    stream.close()
    assert engine.generate(prompt, max_new_tokens=12, seed=1) == expected
    assert engine.stats.reused_tokens == 39
    engine.generate_batch([text(5, seed=2), text(6, seed=3)], max_new_tokens=3)
    assert engine.generate(prompt, max_new_tokens=12, seed=1) == expected
    assert engine.stats.reused_tokens == 0, "the batch had the cache"
    long = text(300, seed=4)
    assert engine.generate(long, max_new_tokens=5, seed=1) == Engine(build(**SHAPE), tokenizer).generate(
        long, max_new_tokens=5, seed=1
    )


def test_a_batch_reuses_the_slots_of_those_that_left(build, tokenizer, kernel):
    engine, plain = Engine(build(**SHAPE), tokenizer), Engine(build(**SHAPE), tokenizer)
    talks = {seed: text(30 + seed, seed=seed) for seed in range(5)}
    with engine.open_batch(n_slots=5, prefill=16) as batch:
        for turn in range(3):
            sequences = {seed: engine.new_sequence(request(ids, seed=turn)) for seed, ids in talks.items()}
            waiting = list(sequences.values())
            while waiting or batch.sequences:
                while waiting and batch.has_room:
                    batch.add(waiting.pop(0))
                batch.step()
            for seed, sequence in sequences.items():
                alone = plain.generate(
                    talks[seed], max_new_tokens=20, seed=turn, stop_ids=(), sampling=sequence.sampling
                )
                assert sequence.new_ids == alone, (turn, seed)
                talks[seed] += [*alone, 5, 6, 7]
            reused = [sequence.reused_tokens for sequence in sequences.values()]
            assert all((n > 30) == (turn > 0) for n in reused), reused


def test_a_sequence_that_failed_leaves_nothing(build, tokenizer, kernel):
    model = build(**SHAPE)
    with torch.no_grad():
        model.transformer.wte.weight[200] = float("nan")
    engine, prompt = Engine(model, tokenizer), [*text(30, seed=1), 200, 1, 2]
    with engine.open_batch(n_slots=1) as batch:
        for _ in range(2):
            sequence = engine.new_sequence(request(prompt))
            batch.add(sequence)
            while batch.sequences:
                batch.step()
            assert sequence.error is not None and sequence.reused_tokens == 0


def test_decoders_whose_results_depend_on_the_batch_reuse_nothing(build, tokenizer):
    engine = Engine(build(**SHAPE), tokenizer, compile="false", keep_cache=True)
    for _ in range(2):
        engine.generate(text(40, seed=1), max_new_tokens=3)
        assert engine.stats.reused_tokens == 0
