"""The 8-bit KV cache: the C++ kernel computes what the slow one in PyTorch does, whatever else is in the batch."""

import copy

import pytest
import torch

from litgpt_core.core.errors import ConfigError
from litgpt_core.generation.choice import choose_decoder
from litgpt_core.generation.decoder import Feed
from litgpt_core.generation.engine import Engine
from litgpt_core.generation.kernel import CHUNK, KernelDecoder
from litgpt_core.generation.sampling_settings import SamplingSettings
from litgpt_core.generation.torch_decoder import TorchDecoder
from litgpt_core.model.config import GPTConfig
from litgpt_core.model.gpt import GPT
from litgpt_core.model.init import initialize
from litgpt_core.model.kv_cache import Int8KVCache, token_codes

LLAMA = {
    "norm_class_name": "RMSNorm",
    "mlp_class_name": "LLaMAMLP",
    "intermediate_size": 96,
    "rotary_percentage": 1.0,
    "parallel_residual": False,
    "bias": False,
}
FAMILIES = {
    "llama": LLAMA | {"n_query_groups": 2},
    "gpt2": {"position_embedding": "learned", "parallel_residual": False},
    "wide heads": LLAMA | {"head_size": 88, "n_query_groups": 1},
    "windows": LLAMA | {"sliding_window_size": 7, "sliding_window_indices": [1, 0], "attention_logit_softcapping": 5.0},
}
SIZES = {"n_layer": 2, "n_head": 4, "n_embd": 64, "block_size": 96, "vocab_size": 200, "padding_multiple": 8}


def random_model(family: dict) -> GPT:
    model = GPT(GPTConfig(**(SIZES | family))).eval()
    initialize(model, seed=3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4 if parameter.dim() > 1 else 1)
    return model


def ids(n: int, *, seed: int = 0) -> list[int]:
    return torch.randint(0, 200, (n,), generator=torch.Generator().manual_seed(seed)).tolist()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES.keys())
@torch.no_grad()
def test_logits_are_those_of_the_slow_cache(family, dtype, processor):
    """A prompt longer than one chunk, then token by token. A number on the edge between two codes may be rounded the
    other way, because sums have another order, and later tokens see it: but that is far less than what rounding does.
    """
    model = random_model(family).to(dtype)
    exact, tokens, prompt = copy.deepcopy(model).float(), ids(60), CHUNK + 9
    exact.set_kv_cache(1, max_seq_length=60, dtype=torch.int8)
    expected = exact(torch.tensor([tokens]), input_pos=torch.arange(60))[0]
    plain = exact(torch.tensor([tokens]))[0]
    decoder = KernelDecoder(model, kv_cache="int8")
    decoder.start(n_sequences=2, length=60)
    rows = [decoder.feed([Feed(1, 0, tokens[:prompt])])[0].clone()]
    rows += [decoder.feed([Feed(1, place, [tokens[place]])])[0].clone() for place in range(prompt, 60)]
    found, size = torch.stack(rows), expected.abs().max()
    gaps = (found - expected[prompt - 1 :]).abs().amax(-1) / size
    rounding = (plain - expected)[prompt - 1 :].abs().amax(-1) / size
    assert 1e-4 < float(rounding.median()) < 0.1, "the cache is rounded"
    assert float(gaps.min()) < 1e-5 and float(gaps.median()) < float(rounding.median()) / 20
    assert float(gaps.max()) < float(rounding.max())


@pytest.mark.parametrize("packed_weights", [False, True])
@torch.no_grad()
def test_neither_the_batch_nor_its_order_changes_a_bit(packed_weights, kernel):
    model = random_model(FAMILIES["wide heads"]).to(torch.bfloat16)
    alone, among = (KernelDecoder(model, packed_weights=packed_weights, kv_cache="int8") for _ in range(2))
    alone.start(n_sequences=1, length=40)
    among.start(n_sequences=5, length=40)
    prompt, batch = ids(20), [Feed(i, 0, ids(20, seed=i)) for i in range(5)]
    first, together = alone.feed([Feed(0, 0, prompt)])[0].clone(), among.feed(batch).clone()
    if packed_weights:  # in place, a product of one row has another order of sums than one of several
        assert torch.equal(first, together[0])
    among.reorder([3, 0, 0], length=20)
    again = among.feed([Feed(0, 20, [5]), Feed(1, 20, [5]), Feed(2, 20, [5])])
    assert torch.equal(again[1], again[2]) and not torch.equal(again[0], again[1])
    if packed_weights:
        assert torch.equal(again[1], alone.feed([Feed(0, 20, [5])])[0])


@torch.no_grad()
def test_plain_pytorch_decodes_the_same_text_and_stores_codes_and_scales(build, tokenizer, kernel):
    model = build()
    greedy, found = SamplingSettings(temperature=0), []
    for compile in ("auto", "false"):
        engine = Engine(model, tokenizer, compile=compile, kv_cache="int8")
        found.append(engine.generate([1, 2, 3], max_new_tokens=12, sampling=greedy, stop_ids=()))
    assert found[0] == found[1]
    assert isinstance(choose_decoder(model, kv_cache="int8"), KernelDecoder)
    decoder = TorchDecoder(model, kv_cache="int8")
    decoder.start(n_sequences=2, length=8)
    cache = model.transformer.h[0].attn.kv_cache
    assert isinstance(cache, Int8KVCache) and cache.k.dtype == torch.int8 and cache.k_scales.shape == (2, 2, 8, 1)
    decoder.finish()
    with pytest.raises(ConfigError, match="kv_cache='int4'"):
        Engine(model, tokenizer, kv_cache="int4")


def test_codes_of_a_token(kernel):
    x = torch.tensor([[0.0, 0.0], [-2.0, 1.0], [127.0, 0.49]])
    codes, scales = token_codes(x)
    assert codes.tolist() == [[0, 0], [-127, 64], [127, 0]]
    assert scales.flatten().tolist() == pytest.approx([0.0, 2 / 127, 1.0])
