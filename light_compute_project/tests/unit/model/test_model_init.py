"""Initial values follow the table in init.py and nothing else."""

from __future__ import annotations

import math

import pytest
import torch

from litgpt_core.doctor.model_checks import KINDS, build
from litgpt_core.model import GPT, GPTConfig
from litgpt_core.model.init import initialize

WIDE = {"n_embd": 128, "n_layer": 8}


def test_spreads_are_as_documented() -> None:
    model = build("MHA", **WIDE)
    for name, parameter in model.named_parameters():
        values = parameter.detach()
        if name.endswith("bias"):
            assert not values.any(), name
        elif "norm" in name or "ln_f" in name:
            assert bool((values == 1).all()), name
        else:
            std = 0.02 / math.sqrt(16) if name.endswith("proj.weight") else 0.02
            assert float(values.std()) == pytest.approx(std, rel=0.05), name
            assert abs(float(values.mean())) < 5 * std / math.sqrt(values.numel()), name


def test_experts_routers_and_shared_experts_are_covered() -> None:
    model = build(
        "mixture of experts", n_expert=8, n_expert_groups=2, n_topk_groups=1, n_topk_scores_per_group=2,
        moe_intermediate_size=64, n_shared_expert=1,
    )  # fmt: skip
    weights = dict(model.named_parameters())
    assert float(weights["transformer.h.1.mlp.gate.weight"].detach().std()) == pytest.approx(0.02, rel=0.15)
    for part in ("experts.3", "shared_experts"):
        assert float(weights[f"transformer.h.1.mlp.{part}.proj.weight"].detach().std()) == pytest.approx(0.01, rel=0.1)
    assert not model.state_dict()["transformer.h.0.mlp.gate.e_score_correction_bias"].any()


@pytest.mark.parametrize("kind", KINDS)
def test_zero_projections_make_blocks_the_identity(kind: str) -> None:
    model = build(kind, init_projection="zero").eval()
    idx = torch.arange(10)[None]
    x = model.transformer.wte(idx)
    if model.transformer.wpe is not None:
        x = x + model.transformer.wpe(torch.arange(10))
    torch.testing.assert_close(model(idx), model.head(model.transformer.ln_f(x)))


def test_a_norm_with_unit_offset_starts_as_one() -> None:
    config = GPTConfig(name="Gemma-like", n_layer=1, n_head=1, n_embd=8, vocab_size=8, norm_class_name="RMSNorm")
    model = GPT(config)
    initialize(model, seed=0)
    x = torch.randn(3, 8)
    assert not model.transformer.ln_f.weight.any()
    torch.testing.assert_close(model.transformer.ln_f(x).square().mean(-1), torch.ones(3), atol=1e-3, rtol=0)


def test_the_global_random_state_neither_matters_nor_changes() -> None:
    torch.manual_seed(1)
    first = build("MHA")
    torch.manual_seed(2)
    second = build("MHA")
    before = torch.get_rng_state()
    initialize(second, seed=0)
    assert torch.equal(torch.get_rng_state(), before)
    for name, parameter in first.named_parameters():
        assert torch.equal(parameter, second.get_parameter(name)), name


def test_values_belong_to_a_name_and_not_to_an_order() -> None:
    """A third layer or an untied head leaves the other parameters as they were; two tensors are never equal."""
    short, long = build("MHA"), build("MHA", n_layer=3, tie_embeddings=True)
    same = "transformer.h.1.attn.qkv.weight"
    assert torch.equal(short.get_parameter(same), long.get_parameter(same))
    assert not torch.equal(short.get_parameter(same), long.get_parameter("transformer.h.0.attn.qkv.weight"))


def test_the_first_loss_is_that_of_a_uniform_guess() -> None:
    model = build("GQA + QK-norm").eval()
    logits = model(torch.randint(61, (4, 16)))
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), torch.randint(61, (64,)))
    assert loss.item() == pytest.approx(math.log(61), rel=0.05)
