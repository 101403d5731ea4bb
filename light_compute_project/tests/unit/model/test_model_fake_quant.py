"""Quantization-aware training: what a layer computes, its gradients, and that its codes are those of rounding."""

import pytest
import torch

from litgpt_core.checkpoint.compressed_matrices import IntegerMatrix
from litgpt_core.model import grid
from litgpt_core.model.config import GPTConfig
from litgpt_core.model.fake_quant import (
    FakeQuantLinear,
    add_fake_quantization,
    hidden_weights,
    plain_weights,
    rounded,
    without_fake_quantization,
)
from litgpt_core.model.gpt import GPT
from litgpt_core.model.init import initialize
from litgpt_core.model.scale_search import search_scales

SIZES = {"n_layer": 2, "n_head": 2, "n_embd": 32, "block_size": 16, "vocab_size": 40, "padding_multiple": 40}


def build(**fields: object) -> GPT:
    model = GPT(GPTConfig(**{**SIZES, **fields}))
    initialize(model, seed=1)
    return model


@pytest.mark.parametrize("bits", [8, 4, 3, 2])
def test_the_codes_are_those_of_rounding_after_training(bits: int):
    model = build()
    linear = model.transformer.h[0].mlp.fc
    kind, weight = grid.Grid(bits), linear.weight.detach().clone()
    add_fake_quantization(model, bits=bits)
    layer = model.transformer.h[0].mlp.fc
    assert type(layer) is FakeQuantLinear and layer.weight is linear.weight and layer.bias is linear.bias
    scales = search_scales(weight.view(-1, 32), kind).view(len(weight), -1)
    ours = IntegerMatrix.of(layer.weight.detach(), layer.qat_scales, bits=bits)
    assert torch.equal(layer.qat_scales, scales)
    assert torch.equal(ours.codes, IntegerMatrix.of(weight, scales, bits=bits).codes)
    assert torch.equal(rounded(weight, scales, bits=bits), ours.dense()), "what it computes with is what is stored"


def test_forward_rounds_and_backward_does_not():
    torch.manual_seed(0)
    layer = FakeQuantLinear(torch.nn.Linear(64, 8), bits=4, scales=torch.rand(8, 2).half().float() * 0.05 + 0.01)
    x, out = torch.randn(5, 64), torch.randn(5, 8)
    near = rounded(layer.weight, layer.qat_scales, bits=4).requires_grad_()
    assert torch.allclose(layer(x), torch.nn.functional.linear(x, near, layer.bias), atol=1e-6)
    (layer(x) * out).sum().backward()
    (torch.nn.functional.linear(x, near) * out).sum().backward()
    assert torch.equal(layer.weight.grad, near.grad) and float((near - layer.weight).detach().abs().max()) > 1e-3


def test_only_blocks_are_rounded_and_the_state_dict_can_be_split_and_joined():
    model = build()
    names = set(model.state_dict())
    add_fake_quantization(model, bits=4)
    weights = model.state_dict()
    marks = set(weights) - names
    assert len(marks) == 2 * 4 and all(".h." in name and name.endswith("qat_scales") for name in marks)
    plain = plain_weights(weights, bits=4)
    assert set(plain) == names and torch.equal(plain["lm_head.weight"], weights["lm_head.weight"])
    other = build()
    add_fake_quantization(other, bits=4, search=False)
    other.load_state_dict({**plain, **hidden_weights(weights)})
    ids = torch.randint(40, (2, 16))
    with torch.no_grad():
        expected = model(ids)
        assert torch.equal(other(ids), expected)
        assert torch.allclose(without_fake_quantization(model)(ids), expected, atol=1e-6)
    assert without_fake_quantization(plain_model := build()) is plain_model


def test_the_last_group_of_an_odd_width_is_filled_up():
    model = build(n_embd=48)
    weight = model.transformer.h[0].attn.qkv.weight.detach().clone()
    add_fake_quantization(model, bits=4)
    layer = model.transformer.h[0].attn.qkv
    assert layer.qat_scales.shape == (144, 2)
    ours = IntegerMatrix.of(weight, layer.qat_scales, bits=4)
    assert ours.columns == 48 and torch.equal(rounded(weight, layer.qat_scales, bits=4), ours.dense())
    assert model(torch.randint(40, (1, 16))).isfinite().all()


def test_searched_scales_are_the_best_of_many_candidates():
    torch.manual_seed(2)
    units, kind = torch.randn(200, 32) * torch.rand(200, 1), grid.Grid(4)
    h = torch.rand(200, 32) + 0.1

    def error(scales: torch.Tensor) -> torch.Tensor:
        return (h * (units - kind.codes(units, scales) * scales.unsqueeze(-1)).square()).sum(-1)

    first = kind.absmax_scales(units)
    fractions = [sign * (1 - 0.01 * i) for sign in (1, -1) for i in range(60)]
    best = torch.stack([error(grid.stored_scales(first * f)) for f in fractions]).amin(0)
    found = error(search_scales(units, kind, importance=h))
    assert float((found / best).mean()) < 1.02 and bool((found <= error(grid.stored_scales(first))).all())
    assert torch.equal(search_scales(torch.zeros(3, 32), kind), torch.zeros(3))
    parts = zip(units.split(7), h.split(7), strict=True)
    found_apart = torch.cat([search_scales(part, kind, importance=weights) for part, weights in parts])
    assert torch.equal(found_apart, search_scales(units, kind, importance=h)), (
        "it does not matter what is searched together"
    )
