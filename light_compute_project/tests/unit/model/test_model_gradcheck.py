"""Autograd's gradients equal finite differences in float64: every kind of module, every parameter and the input.

Everything is tiny, and checked element by element (not by random projections).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.gradcheck import GradcheckError

from litgpt_core.model import GPT, GPTConfig, attention
from litgpt_core.model.attention import CausalSelfAttention
from litgpt_core.model.block import MLPS, Block
from litgpt_core.model.latent_attention import MultiheadLatentAttention
from litgpt_core.model.loss import cross_entropy
from litgpt_core.model.mask import build_masks
from litgpt_core.model.moe import GroupedTopkRouter, LLaMAMoE
from litgpt_core.model.norm import build_norm
from litgpt_core.model.rope import RotaryEmbedding

B, T, C = 2, 4, 8
BASE: dict[str, Any] = {
    "n_layer": 1, "n_head": 4, "n_embd": C, "head_size": 4, "intermediate_size": 6, "block_size": T, "vocab_size": 7,
    "padding_multiple": 1, "rotary_percentage": 1.0, "norm_class_name": "RMSNorm", "bias": False,
    "parallel_residual": False,
}  # fmt: skip
LATENT = {"q_lora_rank": 5, "kv_lora_rank": 4, "qk_rope_head_dim": 2, "qk_nope_head_dim": 3, "v_head_dim": 2}


def config(**overrides: Any) -> GPTConfig:
    return GPTConfig(**{**BASE, **overrides})


def randomised(module: nn.Module) -> nn.Module:
    """In float64, with numbers that are far from any start: norms not 1, biases not 0, projections not small."""
    generator = torch.Generator().manual_seed(0)
    module.double()
    for name, tensor in module.state_dict().items():
        size = 0.05 if name.endswith("correction_bias") else 0.6  # a larger one would choose the experts alone
        tensor.copy_(torch.randn(tensor.shape, generator=generator, dtype=torch.float64) * size)
    return module


def stream() -> Tensor:
    return torch.randn(B, T, C, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def gradients_are_right(module: nn.Module, *arguments: Any) -> bool:
    """Input and parameters against central differences; `arguments` follow the input and are constants."""
    weights = {name: p.detach().requires_grad_() for name, p in module.named_parameters()}

    def run(x: Tensor, *values: Tensor) -> Tensor:
        y: Tensor = torch.func.functional_call(module, dict(zip(weights, values, strict=True)), (x, *arguments))
        return y

    inputs = (stream().requires_grad_(), *weights.values())
    return torch.autograd.gradcheck(run, inputs, eps=1e-6, atol=1e-7, rtol=1e-5)


def surroundings(c: GPTConfig) -> tuple[Any, Any]:
    """The rope table and the mask that `Transformer.forward` would hand to this layer."""
    positions = torch.arange(T)
    masks = build_masks(c, positions)
    table = RotaryEmbedding(c)(positions)[0] if c.rope_n_elem else None
    return table, masks.windowed if c.window_of(0) is not None else masks.full


NORMS = {
    "LayerNorm": {"norm_class_name": "LayerNorm"},
    "LayerNorm without weights": {"norm_class_name": "LayerNorm", "name": "OLMo"},
    "RMSNorm": {},
    "RMSNorm times 1 + weight": {"name": "Gemma"},
}


@pytest.mark.parametrize("kind", NORMS)
def test_norms(kind: str) -> None:
    assert gradients_are_right(randomised(build_norm(config(**NORMS[kind]), C)))


MLP_KINDS = {
    "gelu": {"mlp_class_name": "GptNeoxMLP", "bias": True},
    "gelu by tanh": {"mlp_class_name": "GptNeoxMLP", "gelu_approximate": "tanh"},
    "gated silu": {"mlp_class_name": "LLaMAMLP", "bias": True},
    "gated gelu": {"mlp_class_name": "GemmaMLP", "bias": True},
    "gated gelu by tanh": {"mlp_class_name": "GemmaMLP", "gelu_approximate": "tanh"},
}


@pytest.mark.parametrize("kind", MLP_KINDS)
def test_mlps(kind: str) -> None:
    c = config(**MLP_KINDS[kind])
    assert gradients_are_right(randomised(MLPS[c.mlp_class_name](c)))


def test_every_mlp_kind_is_checked_here() -> None:
    assert {kind["mlp_class_name"] for kind in MLP_KINDS.values()} | {"LLaMAMoE"} == set(MLPS)


ATTENTION = {
    "MHA with biases": {"bias": True},
    "GQA": {"n_query_groups": 2},
    "MQA": {"n_query_groups": 1, "attn_bias": True},
    "QK-norm per head": {"n_query_groups": 2, "norm_qk": True},
    "QK-norm over all heads": {"n_query_groups": 2, "norm_qk": True, "norm_qk_type": "olmo2"},
    "QK-LayerNorm": {"norm_qk": True, "norm_class_name": "LayerNorm"},
    "partial rotary": {"rotary_percentage": 0.5},
    "interleaved rotary": {"rope_interleave": True},
    "no positions": {"rotary_percentage": 0.0},
    "another divisor": {"attention_scores_scalar": 9},
    "window": {"sliding_window_size": 2, "n_query_groups": 2},
    "soft-cap": {"attention_logit_softcapping": 2.0},
    "soft-cap, window, GQA": {"attention_logit_softcapping": 2.0, "sliding_window_size": 3, "n_query_groups": 2},
}


@pytest.mark.parametrize("kind", ATTENTION)
def test_attention(kind: str) -> None:
    c = config(**ATTENTION[kind])
    assert gradients_are_right(randomised(CausalSelfAttention(c)), *surroundings(c))


LATENT_KINDS = {
    "plain": {},
    "biases, interleaved": {"bias": True, "attn_bias": True, "rope_interleave": True},
    "soft-cap": {"attention_logit_softcapping": 2.0},
}


@pytest.mark.parametrize("kind", LATENT_KINDS)
def test_latent_attention(kind: str) -> None:
    c = config(latent_attention=LATENT, **LATENT_KINDS[kind])
    assert gradients_are_right(randomised(MultiheadLatentAttention(c)), *surroundings(c))


GROUPED = {"n_expert_groups": 2, "n_topk_groups": 1, "n_topk_scores_per_group": 2}
MIXTURES = {
    "two of four": {},
    "with a shared expert": {"n_shared_expert": 2, "routed_scaling_factor": 1.7},
    "grouped": {"n_expert": 6, **GROUPED},
    "grouped, normalised, shared": {"n_expert": 6, **GROUPED, "norm_topk_prob": True, "n_shared_expert": 1},
}


@pytest.mark.parametrize("kind", MIXTURES)
def test_mixtures_of_experts_away_from_ties(kind: str) -> None:
    """Which experts a token uses is a step function: the check is fair only where no step lies within its reach."""
    fields = {"mlp_class_name": "LLaMAMoE", "n_expert": 4, "n_expert_per_token": 2, "moe_intermediate_size": 3}
    moe = randomised(LLaMAMoE(config(**{**fields, **MIXTURES[kind]})))
    assert isinstance(moe, LLaMAMoE)
    assert isinstance(moe.gate, GroupedTopkRouter) == ("grouped" in kind)
    tokens = stream().view(-1, C)
    _, chosen = moe.route(tokens)
    assert len(chosen.unique()) >= 4, "different tokens go different ways"
    for seed in range(20):
        moved = torch.randn(tokens.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        assert torch.equal(moe.route(tokens + 1e-4 * moved)[1].sort(-1).values, chosen.sort(-1).values)
    assert gradients_are_right(moe)


LAYOUTS = {
    "sequential": {"bias": True},
    "parallel": {"parallel_residual": True},
    "parallel, one norm": {"parallel_residual": True, "shared_attention_norm": True},
    "norms on the branches too": {"post_attention_norm": True, "post_mlp_norm": True, "name": "Gemma"},
    "norms on the branches only": {
        "norm_1": False, "norm_2": False, "post_attention_norm": True, "post_mlp_norm": True, "norm_qk": True,
        "norm_qk_type": "olmo2",
    },
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_blocks(layout: str) -> None:
    c = config(mlp_class_name="LLaMAMLP", n_query_groups=2, **LAYOUTS[layout])
    assert gradients_are_right(randomised(Block(c, 0)), *surroundings(c))


ENDS = {
    "learned positions, tied": {
        "position_embedding": "learned",
        "tie_embeddings": True,
        "norm_class_name": "LayerNorm",
    },
    "scaled embeddings, soft-capped logits": {"scale_embeddings": True, "final_logit_softcapping": 3.0},
    "head with a bias": {"lm_head_bias": True},
}


@pytest.mark.parametrize("chunk_size", [0, 3])
@pytest.mark.parametrize("kind", ENDS)
def test_embeddings_and_head_through_the_whole_loss(kind: str, chunk_size: int) -> None:
    """From ids to one number: whole and chunked, with z-loss, label smoothing and a target that does not count."""
    model = GPT(config(n_head=1, head_size=2, n_embd=4, intermediate_size=4, **ENDS[kind]))
    randomised(model.eval())
    weights = {name: p.detach().requires_grad_() for name, p in model.named_parameters()}
    idx, targets = torch.tensor([[0, 3, 1, 4]]), torch.tensor([[3, 1, -100, 2]])
    parts = Parts(model)

    def loss(*values: Tensor) -> Tensor:
        named = {f"model.{name}": value for name, value in zip(weights, values, strict=True)}
        y: Tensor = torch.func.functional_call(parts, named, (idx, targets, chunk_size))
        return y

    assert torch.autograd.gradcheck(loss, tuple(weights.values()), eps=1e-6, atol=1e-7, rtol=1e-5)


class Parts(nn.Module):
    """Body, head and loss as one module, as a training step calls them."""

    def __init__(self, model: GPT) -> None:
        super().__init__()
        self.model = model

    def forward(self, idx: Tensor, targets: Tensor, chunk_size: int) -> Tensor:
        hidden = self.model.hidden(idx)
        return cross_entropy(hidden, self.model.head, targets, chunk_size=chunk_size, z_loss=0.1, label_smoothing=0.2)


def test_a_wrong_gradient_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: rope that forgets its gradient must fail the same check that the real one passes."""
    real: Callable[..., Tensor] = attention.apply_rope
    monkeypatch.setattr(attention, "apply_rope", lambda x, *rest, **options: real(x, *rest, **options).detach())
    c = config()
    with pytest.raises(GradcheckError, match="Jacobian mismatch"):
        gradients_are_right(randomised(CausalSelfAttention(c)), *surroundings(c))
