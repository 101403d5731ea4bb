"""Adapters over packed integers: the same as over dequantized weights, forwards and backwards, without keeping them."""

import torch
from torch import nn

from litgpt_core.checkpoint.compressed_matrices import IntegerMatrix
from litgpt_core.model import grid
from litgpt_core.model.config import GPTConfig
from litgpt_core.model.gpt import GPT
from litgpt_core.model.init import initialize
from litgpt_core.model.lora import QuantLoRALinear, adapters, add_adapters, merged, without_adapters
from litgpt_core.model.optional_settings import LoRASettings
from litgpt_core.model.quantized import PackedMatrix, QuantEmbedding, QuantLinear
from litgpt_core.model.structure import structure

SIZES = {"n_layer": 2, "n_head": 2, "n_embd": 32, "block_size": 16, "vocab_size": 40, "padding_multiple": 40}
SETTINGS = LoRASettings(r=3, alpha=5, dropout=0.0)


def pair() -> tuple[GPT, GPT]:
    """A model with packed matrices, and the dense one with the same numbers."""
    packed, dense = GPT(GPTConfig(**SIZES)), GPT(GPTConfig(**SIZES))
    initialize(packed, seed=1)
    dense.load_state_dict(packed.state_dict())
    for path, _ in structure(packed.config).linears():
        linear = packed.get_submodule(path)
        weight = linear.weight.detach()
        scales = grid.stored_scales(grid.Grid(4).absmax_scales(grid.grouped(weight)))
        stored = IntegerMatrix.of(weight, scales, bits=4)
        matrix = PackedMatrix(stored.codes, stored.scales, rows=stored.rows)
        parent, _, name = path.rpartition(".")
        bias = None if linear.bias is None else linear.bias.detach()
        setattr(packed.get_submodule(parent), name, QuantLinear(matrix, bias=bias, int8_activations=True))
        with torch.no_grad():
            dense.get_submodule(path).weight.copy_(stored.dense())
            if path == "lm_head":
                packed.transformer.wte = QuantEmbedding(matrix)
                dense.transformer.wte.weight.copy_(stored.dense())
    packed.lm_head.int8_activations = False
    for model in (packed, dense):
        add_adapters(model, SETTINGS, seed=7)
        with torch.no_grad():
            for name, value in adapters(model).items():
                value.add_(0.1 * torch.randn(value.shape, generator=torch.Generator().manual_seed(len(name))))
    return packed, dense


def test_logits_and_gradients_are_those_over_dequantized_weights():
    packed, dense = pair()
    ids = torch.randint(40, (2, 16), generator=torch.Generator().manual_seed(0))
    outputs = [model(ids) for model in (packed, dense)]
    torch.testing.assert_close(*outputs, atol=1e-5, rtol=1e-4)
    for logits in outputs:
        logits.square().mean().backward()
    trained = {name: p.grad for name, p in packed.named_parameters() if p.requires_grad}
    assert set(trained) == set(adapters(packed)) == set(adapters(dense)) and len(trained) == 2 * 2 * 4
    for name, parameter in dense.named_parameters():
        if parameter.requires_grad:
            torch.testing.assert_close(trained[name], parameter.grad, atol=1e-6, rtol=1e-4)


def test_no_dense_weight_is_kept_for_the_backward_pass():
    packed, _ = pair()
    layer = packed.transformer.h[0].mlp.fc
    assert isinstance(layer, QuantLoRALinear) and not any(isinstance(m, nn.Linear) for m in packed.modules())
    kept: list[tuple[int, ...]] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(tuple(t.shape)) or t, lambda t: t):
        layer(torch.randn(5, 32, requires_grad=True))
    assert kept and (128, 32) not in kept and (32, 128) not in kept


def test_rounded_activations_pass_gradients_straight_through():
    packed, _ = pair()
    head, x = packed.lm_head, torch.randn(3, 32, requires_grad=True)
    grads = []
    for rounding in (False, True):
        head.int8_activations = rounding
        grads.append(torch.autograd.grad(head(x).sum(), x)[0])
    assert torch.equal(*grads) and bool(grads[0].any())
    assert head(torch.zeros(0, 32)).shape == (0, 40), "an expert may get no token"
    assert not torch.equal(head(x), torch.nn.functional.linear(x, head.matrix.dequantize()))


@torch.no_grad()
def test_merging_gives_a_plain_model_that_computes_the_same():
    packed, _ = pair()
    weights = merged(packed)
    assert set(weights) == set(GPT(GPTConfig(**SIZES)).state_dict())
    assert weights["lm_head.weight"] is weights["transformer.wte.weight"], "a tied matrix stays one tensor"
    ids = torch.randint(40, (1, 16))
    torch.testing.assert_close(without_adapters(packed)(ids), packed(ids), atol=2e-5, rtol=1e-4)
