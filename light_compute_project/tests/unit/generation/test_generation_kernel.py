"""The C++ kernel computes what `litgpt_core.model` computes, for every architecture that it supports."""

import copy

import pytest
import torch
from torch import nn

from litgpt_core.generation import kernel_build
from litgpt_core.generation.decoder import Feed
from litgpt_core.generation.kernel import CHUNK, KernelDecoder
from litgpt_core.generation.kernel_support import structure_obstacle, weights_obstacle
from litgpt_core.generation.packed_weights import PackedLayout
from litgpt_core.model import attention
from litgpt_core.model.attend import soft_cap
from litgpt_core.model.config import GPTConfig
from litgpt_core.model.gpt import GPT
from litgpt_core.model.init import initialize

LLAMA = {
    "norm_class_name": "RMSNorm",
    "mlp_class_name": "LLaMAMLP",
    "intermediate_size": 96,
    "rotary_percentage": 1.0,
    "parallel_residual": False,
    "bias": False,
}
GEMMA = LLAMA | {
    "name": "Gemma-small",
    "mlp_class_name": "GemmaMLP",
    "gelu_approximate": "tanh",
    "n_query_groups": 2,
    "scale_embeddings": True,
    "post_attention_norm": True,
    "post_mlp_norm": True,
}
FAMILIES = {
    "neox": {},
    "gpt2": {"position_embedding": "learned", "parallel_residual": False, "gelu_approximate": "tanh"},
    "tied, no bias": {"tie_embeddings": True, "bias": False, "parallel_residual": False},
    "llama": LLAMA | {"n_query_groups": 2},
    "one group": LLAMA | {"n_query_groups": 1, "attn_bias": True},
    "qwen3": LLAMA | {"norm_qk": True, "head_size": 24},
    "olmo2": LLAMA
    | {"norm_qk": True, "norm_qk_type": "olmo2", "norm_1": False, "norm_2": False}
    | {"post_attention_norm": True, "post_mlp_norm": True},
    "olmo": {"name": "OLMo-small", "bias": False, "parallel_residual": False},
    "falcon": {"shared_attention_norm": True, "n_query_groups": 1, "lm_head_bias": True, "rotary_percentage": 1.0},
    "gemma2": GEMMA
    | {"attention_logit_softcapping": 5.0, "final_logit_softcapping": 3.0, "sliding_window_size": 7}
    | {"sliding_window_indices": [1, 0], "attention_scores_scalar": 20},
    "gemma3": GEMMA
    | {"norm_qk": True, "sliding_window_size": 20, "rope_local_base_freq": 100.0}
    | {"rope_indices": [0, 1], "sliding_window_indices": [0, 1]},
    "interleaved": LLAMA | {"rope_interleave": True, "rope_condense_ratio": 4},
    "llama3 rope": LLAMA
    | {
        "rope_adjustments": {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_seq_len": 32}
    },
    "odd sizes": {"n_embd": 44, "n_head": 2, "intermediate_size": 50, "padding_multiple": 7, "rotary_percentage": 0.28},
    "wide heads": LLAMA | {"head_size": 80, "n_query_groups": 2},
}
SIZES = {"n_layer": 2, "n_head": 4, "n_embd": 64, "block_size": 96, "vocab_size": 200, "padding_multiple": 8}


pytestmark = pytest.mark.usefixtures("processor")


def bf16_depth() -> int:
    """2 where the kernel multiplies pairs of bfloat16."""
    return kernel_build.load_kernel().lc_bf16_depth()


def pair(family: dict, dtype: torch.dtype) -> tuple[GPT, GPT]:
    """A model in `dtype`, and the fp32 model with the very same (rounded) weights."""
    model = GPT(GPTConfig(**(SIZES | family))).eval()
    initialize(model, seed=3)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4 if parameter.dim() > 1 else 1).add_(
                0.1 * torch.randn(parameter.shape, generator=generator)
            )
    model = model.to(dtype)
    return model, copy.deepcopy(model).float()


def ids(n: int, *, seed: int = 0) -> list[int]:
    return torch.randint(0, 200, (n,), generator=torch.Generator().manual_seed(seed)).tolist()


def gap(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize(
    ("dtype", "packed_weights"),
    [(torch.float32, False), (torch.float32, True), (torch.bfloat16, False)],
    ids=["fp32", "fp32 packed", "bf16"],
)
@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES.keys())
@torch.no_grad()
def test_logits_are_the_models(family, dtype, packed_weights):
    """A prompt longer than one chunk, then token by token."""
    model, exact = pair(family, dtype)
    assert structure_obstacle(model) is None and weights_obstacle(model) is None
    tokens, prompt = ids(60), CHUNK + 9
    expected = exact(torch.tensor([tokens]))[0]
    decoder = KernelDecoder(model, packed_weights=packed_weights)
    decoder.start(n_sequences=1, length=60)
    assert gap(decoder.feed([Feed(0, 0, tokens[:prompt])])[0], expected[prompt - 1]) < 1e-5
    for place in range(prompt, 60):
        assert gap(decoder.feed([Feed(0, place, [tokens[place]])])[0], expected[place]) < 1e-5


def rounded(x: torch.Tensor) -> torch.Tensor:
    return x.to(torch.bfloat16).to(x.dtype)


def rounding_attend(q, k, v, *, mask, scale, softcap=None, dropout=0.0):
    """`attend` with queries and weights rounded to bfloat16, the latter before they are divided by their sum."""
    repeats = q.size(1) // k.size(1)
    k, v = k.repeat_interleave(repeats, dim=1), v.repeat_interleave(repeats, dim=1)
    scores = rounded(q) @ k.mT * scale
    hidden = ~mask if mask.dtype == torch.bool else mask < 0
    scores = (scores if softcap is None else soft_cap(scores, softcap)).masked_fill(hidden, -torch.inf)
    weights = (scores - scores.amax(-1, keepdim=True)).exp()
    return rounded(weights) @ v / weights.sum(-1, keepdim=True)


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES.keys())
@torch.no_grad()
def test_packed_bf16_weights_equal_the_fp32_model_with_rounded_factors(family, monkeypatch):
    """Keys and values are rounded in both, and where pairs of bfloat16 are multiplied what goes into a product. Now and
    then a number on an edge is rounded the other way, which later tokens see: hence the bounds.
    """
    model, exact = pair(family, torch.bfloat16)
    if pairs := bf16_depth() == 2:
        monkeypatch.setattr(attention, "attend", rounding_attend)
        for module in exact.modules():
            if isinstance(module, nn.Linear):
                module.register_forward_pre_hook(lambda _, inputs: (rounded(inputs[0]),))
    decoder, gaps = KernelDecoder(model, packed_weights=True), []
    for seed in range(4):
        tokens = ids(60, seed=seed)
        exact.set_kv_cache(1, max_seq_length=60, dtype=torch.bfloat16)
        decoder.start(n_sequences=1, length=60)
        for place, token in enumerate(tokens):
            expected = exact(torch.tensor([[token]]), input_pos=torch.tensor([place]))[0, 0]
            gaps.append(gap(decoder.feed([Feed(0, place, [token])])[0], expected))
    assert max(gaps) < (1e-2 if pairs else 1e-3)
    assert sorted(gaps)[120] < (1e-5 if pairs else 1e-4), "the usual gap is a rounding error or none"


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES.keys())
@torch.no_grad()
def test_packed_bf16_weights_are_closer_to_the_fp32_model_than_pytorch(family):
    model, exact = pair(family, torch.bfloat16)
    tokens = ids(60)
    expected = exact(torch.tensor([tokens]))[0]
    decoder = KernelDecoder(model, packed_weights=True)
    decoder.start(n_sequences=1, length=60)
    ours = torch.stack([decoder.feed([Feed(0, place, [token])])[0].clone() for place, token in enumerate(tokens)])
    theirs = model(torch.tensor([tokens]))[0].float()
    away, away_theirs = ((logits - expected).square().mean().sqrt() for logits in (ours, theirs))
    assert away < 0.9 * away_theirs


@pytest.mark.parametrize("window", [16, 20, 21])
@torch.no_grad()
def test_a_sequence_is_not_affected_by_the_old_content_of_its_slot(window):
    """Not even by NaN. Windows of several lengths, so that every alignment of start and end occurs."""
    family = FAMILIES["gemma3"] | {"sliding_window_size": window}
    model, _ = pair(family, torch.bfloat16)
    broken = copy.deepcopy(model)
    broken.transformer.wte.weight.data[7] = torch.nan
    tokens = ids(45)
    tokens = [token if token != 7 else 8 for token in tokens]
    alone, after = KernelDecoder(model, packed_weights=True), KernelDecoder(broken, packed_weights=True)
    for decoder in (alone, after):
        decoder.start(n_sequences=2, length=60)
    after.feed([Feed(0, 0, [7] * 60), Feed(1, 0, [7] * 60)])
    for place in range(45):
        feed = [Feed(0, place, [tokens[place]])]
        assert torch.equal(alone.feed(feed), after.feed(feed)), place


@torch.no_grad()
def test_sequences_of_a_batch_do_not_see_each_other():
    """Prompts of 3, 40 and 7 tokens together; then one of them stands still while the others go on."""
    model, exact = pair(FAMILIES["llama"], torch.bfloat16)
    sequences = [ids(3 + 4, seed=1), ids(40 + 4, seed=2), ids(7 + 4, seed=3)]
    expected = [exact(torch.tensor([text]))[0] for text in sequences]
    decoder = KernelDecoder(model)
    decoder.start(n_sequences=3, length=44)
    first = decoder.feed([Feed(i, 0, text[:-4]) for i, text in enumerate(sequences)]).clone()
    assert all(gap(first[i], expected[i][-5]) < 1e-5 for i in range(3))
    for back in (4, 3, 2, 1):
        live = [0, 2] if back < 3 else [0, 1, 2]
        logits = decoder.feed([Feed(i, len(sequences[i]) - back, [sequences[i][-back]]) for i in live])
        assert all(gap(logits[line], expected[i][-back]) < 1e-5 for line, i in enumerate(live))


@pytest.mark.parametrize("packed_weights", [False, True], ids=["in place", "packed"])
@torch.no_grad()
def test_the_number_of_threads_changes_no_bit(packed_weights):
    """Neighbouring slots of the cache are written by several of them."""
    model, _ = pair(FAMILIES["qwen3"], torch.bfloat16)
    found = []
    for threads in (1, 2, 3, 5):
        torch.set_num_threads(threads)
        decoder = KernelDecoder(model, packed_weights=packed_weights)
        decoder.start(n_sequences=2, length=31)
        decoder.feed([Feed(0, 0, ids(30)), Feed(1, 0, ids(29, seed=1))])
        found.append(decoder.feed([Feed(0, 30, [3]), Feed(1, 29, [4])]).clone())
    assert all(torch.equal(found[0], other) for other in found[1:])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@torch.no_grad()
def test_with_packed_weights_the_batch_size_changes_no_bit(dtype):
    """From 1 to 15 sequences a step: every combination of rows."""
    model, exact = pair(FAMILIES["odd sizes"], dtype)
    tokens = ids(15, seed=4)
    decoder = KernelDecoder(model, packed_weights=True)
    decoder.start(n_sequences=15, length=4)
    together = [decoder.feed([Feed(i, 0, [tokens[i]]) for i in range(n)]).clone() for n in range(1, 16)]
    for logits in together:
        assert torch.equal(logits, together[-1][: len(logits)])
    assert gap(together[-1], exact(torch.tensor([tokens]).T)[:, -1]) < (1e-5 if dtype == torch.float32 else 1e-2)


@pytest.mark.parametrize("family", ["llama", "one group", "gemma3", "odd sizes", "wide heads"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("packed_weights", [False, True], ids=["in place", "packed"])
@torch.no_grad()
def test_a_token_is_computed_alike_with_any_others(family, dtype, packed_weights):
    """Bit for bit: a prompt in one go, in parts, and token by token. Several tokens read the cache together."""
    model, prompt, results = pair(FAMILIES[family], dtype)[0], ids(CHUNK + 20), []
    for parts in ([len(prompt)], [23, len(prompt) - 23], [1] * len(prompt)):
        decoder, at, logits = KernelDecoder(model, packed_weights=packed_weights), 0, []
        decoder.start(n_sequences=1, length=96)
        for n in parts:
            logits.append(decoder.feed_all([Feed(0, at, prompt[at : at + n])]).clone())
            at += n
        results.append(torch.cat(logits))
    assert torch.equal(results[0], results[1]) and torch.equal(results[0], results[2])


@torch.no_grad()
def test_weights_that_have_moved_are_packed_again():
    model, _ = pair(FAMILIES["llama"], torch.bfloat16)
    other, _ = pair(FAMILIES["llama"], torch.bfloat16)
    for parameter in other.parameters():
        parameter.mul_(0.5)
    decoder, fresh = KernelDecoder(model, packed_weights=True), KernelDecoder(other, packed_weights=True)
    for each in (decoder, fresh):
        each.start(n_sequences=1, length=4)
    before = decoder.feed([Feed(0, 0, [1, 2])]).clone()
    decoder.finish()
    model.load_state_dict({name: value.clone() for name, value in other.state_dict().items()}, assign=True)
    decoder.start(n_sequences=1, length=4)
    after = decoder.feed([Feed(0, 0, [1, 2])])
    assert not torch.equal(before, after) and torch.equal(after, fresh.feed([Feed(0, 0, [1, 2])]))


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_packed_weights_have_the_layout_that_the_kernel_reads(dtype, depth):
    weight = torch.randn(21, 5).to(dtype)
    layout = PackedLayout(lanes=8, bf16_depth=depth)
    packed_weights = torch.full(layout.shape(weight), torch.nan, dtype=dtype)
    layout.pack(weight, out=packed_weights)
    for output in range(32):
        group, half, lane = output // 16, output % 16 // 8, output % 8
        if dtype == torch.float32:
            place = packed_weights[group, :, half, lane]
        else:
            place = (
                packed_weights[group, :, lane, half] if depth == 1 else packed_weights[group, :, half, lane].flatten()
            )
        assert torch.equal(place[:5], weight[output] if output < 21 else torch.zeros(5, dtype=dtype))
        assert not place[5:].any()


@pytest.mark.parametrize(
    ("dtype", "packed_weights", "bound"), [(torch.float32, False, 1e-5), (torch.bfloat16, True, 3e-2)]
)
@torch.no_grad()
def test_reorder_moves_the_cache_of_sequences(dtype, packed_weights, bound):
    model, exact = pair(FAMILIES["llama"], dtype)
    sequences = [ids(6, seed=seed) for seed in range(3)]
    decoder = KernelDecoder(model, packed_weights=packed_weights)
    decoder.start(n_sequences=3, length=8)
    decoder.feed([Feed(i, 0, text) for i, text in enumerate(sequences)])
    decoder.reorder([2, 0, 2], length=6)
    found = decoder.feed([Feed(i, 6, [9]) for i in range(3)])
    for row, source in enumerate([2, 0, 2]):
        assert gap(found[row], exact(torch.tensor([[*sequences[source], 9]]))[0, -1]) < bound


def test_unsupported_architectures_are_named():
    moe = LLAMA | {"mlp_class_name": "LLaMAMoE", "n_expert": 4, "n_expert_per_token": 2}
    latent = {"q_lora_rank": 8, "kv_lora_rank": 8, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8}
    assert "n_expert=4" in structure_obstacle(GPT(GPTConfig(**(SIZES | moe))))
    assert "latent_attention" in structure_obstacle(GPT(GPTConfig(**(SIZES | LLAMA | {"latent_attention": latent}))))
    model, _ = pair(LLAMA, torch.float16)
    assert structure_obstacle(model) is None
    assert "float32 or bfloat16" in weights_obstacle(model)

    class Quantized(torch.nn.Linear):
        pass

    model.transformer.h[1].attn.proj = Quantized(64, 64)
    assert structure_obstacle(model) == "it does not support Quantized (transformer.h.1.attn.proj)"


@pytest.mark.parametrize("part", ["attn.qkv.weight", "mlp.fc_1.weight", "norm_1.weight"])
def test_a_nan_weight_leads_to_nan_logits(part):
    model, _ = pair(LLAMA, torch.float32)
    with torch.no_grad():
        model.get_parameter(f"transformer.h.1.{part}").flatten()[-1 if part.startswith("norm") else 64 * 64] = torch.nan
    decoder = KernelDecoder(model)
    decoder.start(n_sequences=1, length=8)
    assert decoder.feed([Feed(0, 0, ids(8))]).isnan().any()


def test_weights_changed_by_training_are_read_again():
    model, _ = pair(FAMILIES["gpt2"], torch.float32)
    decoder = KernelDecoder(model)
    for _ in range(2):
        decoder.start(n_sequences=1, length=8)
        with torch.no_grad():
            expected = model(torch.tensor([ids(8)]))[0, -1]
        assert gap(decoder.feed([Feed(0, 0, ids(8))])[0], expected) < 1e-5
        decoder.finish()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.05)
