"""The C++ kernel multiplies integer weights as the slow emulation in PyTorch does, on every kind of processor."""

import pytest
import torch

from litgpt_core.generation import kernel_build
from litgpt_core.generation.decoder import Feed
from litgpt_core.generation.kernel import CHUNK, KernelDecoder
from litgpt_core.generation.kernel_build import load_kernel
from litgpt_core.generation.kernel_support import structure_obstacle, weights_obstacle
from litgpt_core.generation.weight_memory import move_to_huge_pages
from litgpt_core.model import grid
from litgpt_core.model.config import GPTConfig
from litgpt_core.model.gpt import GPT
from litgpt_core.model.init import initialize
from litgpt_core.model.quantized import PackedMatrix, QuantEmbedding, QuantLinear
from litgpt_core.model.structure import structure

SIZES = {"n_layer": 2, "n_head": 4, "n_embd": 64, "block_size": 96, "vocab_size": 200, "padding_multiple": 8}
LLAMA = {
    "norm_class_name": "RMSNorm",
    "mlp_class_name": "LLaMAMLP",
    "intermediate_size": 96,
    "rotary_percentage": 1.0,
    "parallel_residual": False,
    "bias": False,
}
FAMILIES = {
    "neox": {},
    "llama": LLAMA | {"n_query_groups": 2, "attn_bias": True},
    "odd rows": LLAMA | {"n_head": 3, "head_size": 32, "intermediate_size": 160, "padding_multiple": 7},
    "odd widths": LLAMA | {"n_embd": 48, "n_head": 3, "intermediate_size": 100},
    "parallel": {"shared_attention_norm": True, "n_query_groups": 1, "lm_head_bias": True, "rotary_percentage": 1.0},
}


@pytest.fixture(params=["this processor", "without AVX-512", "portable"])
def instructions(request, kernel, monkeypatch):
    """The kernel as built here, and as built without the instructions of newer processors."""
    flags = {"without AVX-512": "-march=x86-64-v3", "portable": "-march=native -DLIGHT_COMPUTE_PORTABLE_DOT"}
    if request.param in flags:
        if request.param == "without AVX-512" and kernel_build.platform.machine() != "x86_64":
            pytest.skip("for x86-64")
        load_kernel.cache_clear()
        chosen = (*kernel_build.FLAGS, *flags[request.param].split())
        monkeypatch.setattr(kernel_build, "_flags", lambda: chosen)
    yield
    if request.param in flags:
        load_kernel.cache_clear()


def packed(weight: torch.Tensor, *, bits: int) -> PackedMatrix:
    kind = grid.Grid(bits)
    scales = grid.stored_scales(kind.absmax_scales(grid.grouped(weight)))
    codes = kind.codes(grid.grouped(weight), scales).flatten(-2)
    parts = grid.pack(codes, scales, stored_bits=kind.stored_bits)
    return PackedMatrix(*parts, rows=weight.size(0), columns=weight.size(1))


def quantized(family: dict, *, bits: int, tied: bool = True, dtype: torch.dtype = torch.float32) -> GPT:
    """A random model whose matrices are integers; the head has 8 bits and is the embedding where `tied`."""
    model = GPT(GPTConfig(**(SIZES | family))).eval()
    initialize(model, seed=3)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            scale = 4 if parameter.dim() > 1 else 1
            parameter.mul_(scale).add_(0.1 * torch.randn(parameter.shape, generator=generator))
    for path, _ in structure(model.config).linears():
        linear = model.get_submodule(path)
        matrix = packed(linear.weight.detach(), bits=8 if path == "lm_head" else bits)
        parent, _, name = path.rpartition(".")
        quant = QuantLinear(matrix, bias=None if linear.bias is None else linear.bias.detach(), int8_activations=True)
        setattr(model.get_submodule(parent), name, quant)
        if path == "lm_head" and tied:
            model.transformer.wte = QuantEmbedding(matrix)
    return model.to(dtype)


def ids(n: int, *, seed: int = 0) -> list[int]:
    return torch.randint(0, 200, (n,), generator=torch.Generator().manual_seed(seed)).tolist()


def gap(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES.keys())
@torch.no_grad()
def test_logits_are_those_of_the_emulation(family, bits, instructions):
    """A prompt longer than one chunk, then token by token, three times. An activation on the edge between two codes may
    be rounded the other way, because sums have another order, and all later tokens see it: not in two of three texts.
    """
    model = quantized(family, bits=bits)
    assert structure_obstacle(model) is None and weights_obstacle(model) is None
    largest, prompt = [], CHUNK + 9
    for seed in range(3):
        tokens = ids(46, seed=seed)
        expected = model(torch.tensor([tokens]))[0]
        decoder = KernelDecoder(model)
        decoder.start(n_sequences=1, length=50)
        gaps = [gap(decoder.feed([Feed(0, 0, tokens[:prompt])])[0], expected[prompt - 1])]
        for place in range(prompt, 46):
            gaps.append(gap(decoder.feed([Feed(0, place, [tokens[place]])])[0], expected[place]))
        largest.append(max(gaps))
    assert sorted(largest)[1] < 1e-5 and max(largest) < 3e-2


@pytest.mark.parametrize("bits", [4, 8])
@torch.no_grad()
def test_one_product_is_exact(bits, instructions):
    """The head alone: the residual stream is the embedding, and only the order of two additions differs."""
    config = GPTConfig(**(SIZES | LLAMA | {"n_layer": 1, "vocab_size": 208}))
    model = quantized(LLAMA | {"n_layer": 1}, bits=bits, tied=False)
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(config.padded_vocab_size - 8, config.n_embd, generator=generator)
    model.lm_head = QuantLinear(packed(weight, bits=bits), int8_activations=True)
    for block in model.transformer.h:
        for linear in (block.attn.proj, block.mlp.proj):
            linear.matrix.scale_bits.zero_()  # the residual stream is the embedding
    decoder = KernelDecoder(model)
    decoder.start(n_sequences=1, length=8)
    found = decoder.feed([Feed(0, 0, [17])])[0]
    assert gap(found, model(torch.tensor([[17]]))[0, -1]) < 1e-6


@pytest.mark.parametrize(
    "family", [FAMILIES["odd rows"], LLAMA | {"n_embd": 320, "n_head": 5, "intermediate_size": 576}]
)
@pytest.mark.parametrize("bits", [4, 8])
@torch.no_grad()
def test_neither_batch_size_nor_threads_change_a_bit(bits, family, instructions):
    """With few groups of inputs and with many, whose loop a compiler does not unroll."""
    model = quantized(family, bits=bits, dtype=torch.bfloat16)
    tokens = ids(15, seed=4)
    found = []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        decoder = KernelDecoder(model)
        decoder.start(n_sequences=15, length=4)
        found += [decoder.feed([Feed(i, 0, [tokens[i]]) for i in range(n)]).clone() for n in range(1, 16)]
    assert all(torch.equal(logits, found[-1][: len(logits)]) for logits in found)


@pytest.mark.parametrize("packed_weights", [False, True])
@torch.no_grad()
def test_dense_and_integer_matrices_may_be_mixed(packed_weights, kernel):
    model = quantized(LLAMA, bits=4, tied=False, dtype=torch.float32)
    dense = torch.nn.Linear(64, 64, bias=False)
    dense.weight.copy_(model.transformer.h[1].attn.proj.matrix.dequantize())
    model.transformer.h[1].attn.proj = dense
    decoder = KernelDecoder(model, packed_weights=packed_weights)
    decoder.start(n_sequences=1, length=8)
    assert gap(decoder.feed([Feed(0, 0, ids(8))])[0], model(torch.tensor([ids(8)]))[0, -1]) < 5e-3
    model.transformer.h[0].mlp.fc_1 = torch.nn.Linear(64, 96, bias=False)
    assert "only one of fc_1 and fc_2" in structure_obstacle(model)


@torch.no_grad()
def test_huge_pages_and_other_dtypes_leave_packed_matrices_as_they_are(kernel):
    model = quantized(LLAMA, bits=4)
    matrix = model.transformer.h[0].attn.qkv.matrix
    codes, scales = matrix.codes.clone(), matrix.scales.clone()
    move_to_huge_pages(model, dtype=torch.bfloat16)
    model.to(torch.bfloat16)
    assert torch.equal(matrix.codes, codes) and torch.equal(matrix.scales, scales)
    assert model.dtype == torch.bfloat16 and model.lm_head.matrix is model.transformer.wte.matrix


def test_a_nan_scale_leads_to_nan_logits(kernel):
    model = quantized(LLAMA, bits=4)
    model.transformer.h[1].mlp.fc_1.matrix.scale_bits.view(torch.float16)[0, 0, 3] = torch.nan
    decoder = KernelDecoder(model)
    decoder.start(n_sequences=1, length=8)
    assert decoder.feed([Feed(0, 0, ids(8))]).isnan().any()


@pytest.mark.parametrize("bits", [8, 4])
@torch.no_grad()
def test_a_token_is_computed_alike_with_any_others(instructions, bits):
    """Bit for bit: a prompt in one go, in parts, and token by token."""
    model, prompt, results = quantized(FAMILIES["llama"], bits=bits), ids(CHUNK + 20), []
    for parts in ([len(prompt)], [23, len(prompt) - 23], [1] * len(prompt)):
        decoder, at = KernelDecoder(model), 0
        decoder.start(n_sequences=1, length=96)
        for n in parts:
            logits = decoder.feed([Feed(0, at, prompt[at : at + n])]).clone()
            at += n
        results.append(logits)
    assert torch.equal(results[0], results[1]) and torch.equal(results[0], results[2])
