"""The numbers of every tensor of every kind of model against the table in init.py, by their sampling error.

A sample of n normal numbers has a mean within sigma / sqrt(n) of 0 and a standard deviation within
sigma / sqrt(2 n) of sigma, typically. The bounds are 4.5 times that: over the few hundred tensors here, chance
reaches 3.5; the seeds are fixed.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from litgpt_core.doctor.model_checks import KINDS, build
from litgpt_core.model import GPT

BOUND = 4.5
WIDE: dict[str, Any] = {"n_embd": 96, "n_head": 4, "intermediate_size": 160, "vocab_size": 211, "n_layer": 3}
GROUPED = {"n_expert": 6, "n_expert_groups": 2, "n_topk_groups": 1, "n_topk_scores_per_group": 2, "n_shared_expert": 2}
BIASED = {"bias": True, "attn_bias": True, "lm_head_bias": True}
LAYERED = {kind: {"sliding_window_indices": [1, 0, 1]} for kind in KINDS if "windows" in kind}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    **{kind: (kind, LAYERED.get(kind, {})) for kind in KINDS},
    **{f"{kind}, biases": (kind, BIASED | LAYERED.get(kind, {})) for kind in KINDS},
    "grouped routing": ("mixture of experts", {**GROUPED, "moe_intermediate_size": 80}),
    "Gemma": ("GQA + QK-norm", {"name": "Gemma", "post_mlp_norm": True, "post_attention_norm": True}),
    "OLMo": ("MHA", {"name": "OLMo"}),
    "QK-norm over all heads": ("GQA + QK-norm", {"norm_qk_type": "olmo2"}),
    "one layer": ("GQA + QK-norm", {"n_layer": 1}),
    "eight layers": ("MHA", {"n_layer": 8, "n_embd": 64}),
}


def model_of(label: str, **overrides: Any) -> GPT:
    kind, fields = MODELS[label]
    return build(kind, **{**WIDE, **fields, **overrides})


def expected_std(name: str, model: GPT) -> float | None:
    """The documented standard deviation, or None for tensors of one value."""
    module, kind = name.rsplit(".", 1)
    if kind == "bias" or "norm" in module or "ln_f" in module:
        return None
    if module.endswith(".proj"):
        return 0.02 / math.sqrt(2 * model.config.n_layer)
    return 0.02


def is_normal(values: Tensor, std: float) -> bool:
    """Mean, spread, and the share within one standard deviation, each within its sampling error."""
    n, inside = values.numel(), math.erf(math.sqrt(0.5))
    mean, spread = float(values.mean()), float(values.std())
    share = float((values.abs() < std).double().mean())
    return (
        abs(mean) < BOUND * std / math.sqrt(n)
        and abs(spread / std - 1) < BOUND / math.sqrt(2 * n)
        and abs(share - inside) < BOUND * math.sqrt(inside * (1 - inside) / n)
    )


@pytest.mark.parametrize("label", MODELS)
def test_every_tensor_is_drawn_as_documented(label: str) -> None:
    model = model_of(label)
    unit = 0.0 if label == "Gemma" else 1.0
    n_normal = 0
    for name, parameter in model.named_parameters():
        values, std = parameter.detach().double(), expected_std(name, model)
        if std is not None:
            n_normal += 1
            assert is_normal(values, std), f"{name}: {float(values.mean()):.2e} +- {float(values.std()):.4e}, not {std}"
        else:
            assert bool((values == (0.0 if name.endswith("bias") else unit)).all()), name
    per_layer = 4 if label != "grouped routing" else 10
    assert n_normal >= per_layer * model.config.n_layer + 1


@pytest.mark.parametrize("label", MODELS)
def test_zero_projections_and_nothing_else_change(label: str) -> None:
    scaled, zero = model_of(label), model_of(label, init_projection="zero")
    for name, parameter in zero.named_parameters():
        if name.endswith(".proj.weight"):
            assert not parameter.any(), name
        else:
            assert torch.equal(parameter, scaled.get_parameter(name)), name


@pytest.mark.parametrize(("n_layer", "std"), [(1, 0.0141421356), (2, 0.01), (8, 0.005), (32, 0.0025)])
def test_scaled_projections_by_hand(n_layer: int, std: float) -> None:
    """0.02 / sqrt(2 * n_layer), so that 2 * n_layer branches add up to the variance of one draw of 0.02."""
    model = build("MHA", n_layer=n_layer)
    projections = [p.detach() for name, p in model.named_parameters() if name.endswith("proj.weight")]
    values = torch.cat([p.flatten() for p in projections]).double()
    assert len(projections) == 2 * n_layer
    assert is_normal(values, std)
    assert not is_normal(values, 1.1 * std), "the test sees a difference of a tenth"


@pytest.mark.parametrize("label", ["MHA", "grouped routing", "latent attention"])
def test_tensors_are_independent_of_each_other(label: str) -> None:
    """Same shape, other numbers: experts, layers, and the parts of one fused projection."""
    drawn: list[Tensor] = []
    for name, parameter in model_of(label).named_parameters():
        if name.endswith("qkv.weight"):
            drawn += [part.flatten() for part in parameter.detach().chunk(3)]
        elif parameter.ndim == 2:
            drawn.append(parameter.detach().flatten())
    pairs = [(a, b) for a, b in itertools.combinations(drawn, 2) if a.shape == b.shape]
    assert len(pairs) >= 3
    for a, b in pairs:
        assert abs(float(torch.corrcoef(torch.stack((a, b)))[0, 1])) < BOUND / math.sqrt(a.numel())


def test_a_tied_head_has_the_tables_values() -> None:
    tied, untied = model_of("learned positions, tied"), model_of("learned positions, tied", tie_embeddings=False)
    table = untied.transformer.wte.weight
    assert torch.equal(tied.transformer.wte.weight, table)
    assert torch.equal(tied.lm_head.weight, table)
    assert not torch.equal(untied.lm_head.weight, table)
