"""The engine equals the reference implementation and has no side effects on the model."""

import subprocess
import sys

import pytest
import torch

from litgpt_core.core.errors import CheckpointError, ConfigError
from litgpt_core.generation.engine import Engine
from litgpt_core.generation.reference import generate_reference, window_start
from litgpt_core.generation.sampling import GREEDY, SamplingSettings

FAMILIES = {
    "default": {},
    "learned positions": {"position_embedding": "learned"},
    "grouped queries, RMSNorm, gated": {
        "n_head": 4,
        "n_query_groups": 2,
        "norm_class_name": "RMSNorm",
        "mlp_class_name": "LLaMAMLP",
        "intermediate_size": 64,
        "rotary_percentage": 1.0,
        "parallel_residual": False,
        "bias": False,
    },
    "sliding window": {"sliding_window_size": 5},
    "tied": {"tie_embeddings": True},
}
PROMPTS = {"short": 3, "one": 1, "nearly full": 23, "full": 24, "too long": 40}


@pytest.mark.parametrize("compile", ["auto", "false"])
@pytest.mark.parametrize(
    "sampling", [GREEDY, SamplingSettings(temperature=0.9, top_k=40, top_p=0.95)], ids=["greedy", "sampled"]
)
@pytest.mark.parametrize("length", PROMPTS.values(), ids=PROMPTS.keys())
@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES.keys())
def test_the_kv_cache_changes_no_token(build, tokenizer, family, length, sampling, compile):
    """40 tokens with a window of 24: every case slides at least once."""
    model = build(**family)
    prompt = torch.randint(1, 256, (length,), generator=torch.Generator().manual_seed(length)).tolist()
    settings = {"max_new_tokens": 40, "sampling": sampling, "seed": 5, "stop_ids": ()}
    fast = Engine(model, tokenizer, compile=compile).generate(prompt, **settings)
    assert fast == generate_reference(model, prompt, **settings, vocab_size=256)
    assert len(fast) == 40
    assert len(set(fast)) > 1, "a model that repeats itself shows nothing"


def test_a_long_text_slides_by_half_a_window():
    starts, start = [], 0
    for length in range(1, 30):
        start = window_start(start, length=length, block_size=8)
        starts.append(start)
        assert 1 <= length - start <= 8
    assert starts[:8] == [0] * 8
    assert starts[8:13] == [5] * 5, "the 9th token sees the last 4 of 9"
    assert window_start(0, length=100, block_size=8) == 96
    assert window_start(0, length=3, block_size=1) == 2


def test_padding_ids_are_never_sampled(build, tokenizer):
    model = build()
    with torch.no_grad():
        model.lm_head.weight[256:] = 50 * model.lm_head.weight[:44].abs().sum(0)
    tokens = Engine(model, tokenizer).generate(
        [1], max_new_tokens=60, sampling=SamplingSettings(temperature=3.0), seed=1
    )
    assert max(tokens) < 256


def test_equal_seeds_give_equal_texts(build, tokenizer):
    engine = Engine(build(), tokenizer)
    first, again, other = (engine.generate([65], max_new_tokens=20, seed=seed, stop_ids=()) for seed in (1, 1, 2))
    assert first == again != other
    assert engine.generate([65], max_new_tokens=20, stop_ids=()) != engine.generate(
        [65], max_new_tokens=20, stop_ids=()
    )


def test_a_stop_id_ends_the_text_and_is_not_part_of_it(build, tokenizer):
    engine = Engine(build(), tokenizer)
    free = engine.generate([65], max_new_tokens=20, sampling=GREEDY, stop_ids=())
    stop = free[7]
    assert engine.generate([65], max_new_tokens=20, sampling=GREEDY, stop_ids=[stop]) == free[: free.index(stop)]
    with torch.no_grad():
        engine.model.lm_head.bias = torch.nn.Parameter(torch.zeros(300))
        engine.model.lm_head.bias[tokenizer.eos_id] = 1e6
    assert engine.generate([65], max_new_tokens=20, sampling=GREEDY) == []
    assert engine.generate([65], max_new_tokens=3, sampling=GREEDY, stop_ids=()) == [tokenizer.eos_id] * 3


def test_an_empty_prompt_starts_a_document(build, tokenizer):
    engine = Engine(build(), tokenizer)
    settings = {"max_new_tokens": 5, "sampling": GREEDY, "stop_ids": ()}
    assert tokenizer.bos_id is None
    assert engine.generate([], **settings) == engine.generate([tokenizer.eos_id], **settings)
    assert engine.generate_text("", **settings) == tokenizer.decode(engine.generate([], **settings))
    tokenizer.bos_id = 7
    assert engine.generate([], **settings) == engine.generate([7], **settings)
    assert Engine(engine.model, tokenizer, add_bos=True).encode_prompt("A") == [7, 65]
    assert Engine(engine.model, tokenizer).encode_prompt("A") == [65]


def test_tokens_are_streamed_as_they_are_decoded(build, tokenizer, monkeypatch):
    engine = Engine(build(), tokenizer, compile="false")
    passes = []
    hidden = engine.model.hidden
    monkeypatch.setattr(engine.model, "hidden", lambda idx, **more: passes.append(idx.size(1)) or hidden(idx, **more))
    stream = engine.generate_stream([1, 2, 3], max_new_tokens=10, seed=1, stop_ids=())
    assert passes == []
    next(stream)
    assert passes == [3]
    next(stream)
    assert passes == [3, 1]
    assert engine.stats.new_tokens == 2
    assert len(list(stream)) == 8
    assert engine.stats.new_tokens == 10
    assert 0 < engine.stats.seconds_to_first_token < engine.stats.seconds
    assert engine.stats.tokens_per_second > 0


def test_a_model_in_training_is_restored(build, tokenizer):
    model = build(dropout=0.5).train()
    calm = Engine(model, tokenizer).generate([1], max_new_tokens=8, sampling=GREEDY, stop_ids=())
    assert calm == generate_reference(model.eval(), [1], max_new_tokens=8, sampling=GREEDY, vocab_size=256)
    model.train()
    stream = Engine(model, tokenizer).generate_stream([1], max_new_tokens=8)
    next(stream)
    assert not model.training
    stream.close()
    assert model.training and model.transformer.cache_length is None
    model(torch.ones(1, 4, dtype=torch.long)).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_a_second_generation_ends_the_first_with_an_error(build, tokenizer):
    engine = Engine(build().train(), tokenizer)
    settings = {"max_new_tokens": 10, "sampling": GREEDY, "stop_ids": ()}
    expected = engine.generate([2], **settings)
    first = engine.generate_stream([1], **(settings | {"max_new_tokens": 60}))
    next(first)
    second = engine.generate_stream([2], **settings)
    next(first)  # the second has not begun yet
    tokens = [next(second)]
    with pytest.raises(RuntimeError, match="one at a time"):
        list(first)  # tokens decoded before may still be returned
    assert tokens + list(second) == expected
    assert engine.model.training


def test_wrong_requests_are_refused_before_anything_runs(build, tokenizer):
    engine = Engine(build(), tokenizer)
    with pytest.raises(ConfigError, match="max_new_tokens=-1"):
        engine.generate_stream([1], max_new_tokens=-1)
    with pytest.raises(CheckpointError, match="token 300, but the model has 300"):
        engine.generate_stream([1, 300], max_new_tokens=1)
    assert engine.generate([1], max_new_tokens=0) == []


def test_text_is_the_decoded_ids(build, tokenizer):
    engine = Engine(build(), tokenizer)
    settings = {"max_new_tokens": 50, "seed": 3, "sampling": SamplingSettings(temperature=1.5), "stop_ids": ()}
    ids = engine.generate(tokenizer.encode("def "), **settings)
    deltas = list(engine.generate_text_stream("def ", **settings))
    assert "".join(deltas) == tokenizer.decode(ids) == engine.generate_text("def ", **settings)
    assert len(deltas) > 5


def test_a_directory_or_a_run_folder_is_enough(directory, build, tokenizer):
    settings = {"max_new_tokens": 12, "sampling": GREEDY, "stop_ids": ()}
    expected = Engine(build(), tokenizer).generate_text("x = ", **settings)
    assert Engine.from_directory(directory, device="cpu", dtype="32").generate_text("x = ", **settings) == expected
    engine = Engine.from_directory(directory.parent, device="cpu", dtype="32")
    assert engine.generate_text("x = ", **settings) == expected
    assert engine.model.lm_head.weight.dtype == torch.float32
    half = Engine.from_directory(directory, device="cpu", dtype="bf16")
    assert half.model.lm_head.weight.dtype == torch.bfloat16
    assert len(half.generate([1], max_new_tokens=30, seed=1, stop_ids=())) == 30


def test_generation_imports_no_slow_package(directory):
    """No Trainer, no upstream, and not torch's compiler either: each takes seconds."""
    code = (
        "import sys; from pathlib import Path; from litgpt_core.generation.engine import Engine;"
        "Engine.from_directory(Path(sys.argv[1]), device='cpu').generate_text('a', max_new_tokens=30, seed=1);"
        "slow = 'lightning litgpt hydra omegaconf wandb matplotlib transformers torch._dynamo sympy'.split();"
        "found = [name for name in slow if name in sys.modules];"
        "sys.exit(f'imported: {found}' if found else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(directory)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
