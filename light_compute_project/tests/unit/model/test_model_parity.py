"""Our GPT against LitGPT's: config fields, weight names and shapes, logits, gradients. LitGPT is the oracle.

Every registry name is compared at full size on the meta device, and once more shrunken, with real numbers. Importing
litgpt takes seconds, so these tests carry the marker `parity`.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from litgpt_core.model import GPT, GPTConfig
from litgpt_core.model.config import OURS, registry_names
from litgpt_core.model.cost import count_parameters

litgpt = pytest.importorskip("litgpt")
from litgpt.config import configs as upstream_entries  # noqa: E402

pytestmark = pytest.mark.parity

TOLERANCE = 1e-5
T = 12


# --- configs


def test_fields_and_defaults_are_upstreams_plus_four() -> None:
    def described(cls: type) -> dict[str, Any]:
        return {f.name: f.default if f.default_factory is dataclasses.MISSING else {} for f in dataclasses.fields(cls)}

    ours = described(GPTConfig)
    assert {name: ours.pop(name) for name in OURS} == {
        "dropout": 0.0,
        "position_embedding": "rope",
        "tie_embeddings": False,
        "init_projection": "scaled",
    }
    assert ours == described(litgpt.Config)


def test_registry_names_are_upstreams() -> None:
    names = [entry["name"] for entry in upstream_entries]
    assert registry_names() == names
    assert len(names) == 210


def test_every_registry_name_gives_upstreams_values() -> None:
    for name in registry_names():
        ours, theirs = GPTConfig.from_name(name), litgpt.Config.from_name(name)
        for field in dataclasses.fields(theirs):
            assert getattr(ours, field.name) == getattr(theirs, field.name), (name, field.name)
        assert ours.rope_n_elem == theirs.rope_n_elem, name


def test_the_written_yaml_builds_the_same_upstream_config() -> None:
    for name in registry_names():
        written = GPTConfig.from_name(name).to_yaml_dict()
        assert dataclasses.asdict(litgpt.Config(**written)) == dataclasses.asdict(litgpt.Config.from_name(name)), name


# --- names and shapes


@pytest.mark.parametrize("part", range(6))
def test_weight_names_and_shapes_of_every_registry_name(part: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """At full width and depth on the meta device; only the many experts of a layer, all alike, are cut to four."""
    for layer in (torch.nn.Linear, torch.nn.Embedding):
        monkeypatch.setattr(
            layer, "reset_parameters", lambda self: None
        )  # random numbers on meta take most of the time
    for name in registry_names()[part::6]:
        few = {"n_expert": 4, "n_expert_per_token": 2} if GPTConfig.from_name(name).n_expert else {}
        with torch.device("meta"):
            ours, theirs = GPT(GPTConfig.from_name(name, **few)), litgpt.GPT.from_name(name, **few)
        assert shapes(ours) == shapes(theirs), name
        assert count_parameters(ours.config) == sum(p.numel() for p in theirs.parameters()), name


def shapes(model: torch.nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in model.state_dict().items()}


# --- logits


def shrunken(entry: dict[str, Any]) -> dict[str, Any]:
    """The same kind of model, small: every switch is kept, sizes are not."""
    full = litgpt.Config(**entry)
    small = {key: value for key, value in entry.items() if key not in ("hf_config", "n_embd", "n_layer")}
    groups = 4 if full.n_query_groups == full.n_head else 1 if full.n_query_groups == 1 else 2
    odd_heads = full.head_size * full.n_head != full.n_embd
    small |= {"n_layer": 3, "n_head": 4, "n_embd": 64, "n_query_groups": groups, "head_size": 24 if odd_heads else 16}
    small |= {"block_size": 32, "vocab_size": 100, "padded_vocab_size": 128, "intermediate_size": 96}
    if full.n_expert:
        small |= {"n_expert": 4, "n_expert_per_token": 2}
        small["moe_intermediate_size"] = 40 if full.moe_intermediate_size else None
    if full.sliding_window_size:
        small["sliding_window_size"] = 5
    if full.rope_adjustments and "original_max_seq_len" in full.rope_adjustments:
        small["rope_adjustments"] = full.rope_adjustments | {"original_max_seq_len": 16}
    return small


def families() -> dict[str, dict[str, Any]]:
    """One shrunken config per kind of model in the registry, and what LitGPT has but the registry does not use."""
    found: dict[str, dict[str, Any]] = {}
    for entry in upstream_entries:
        small = shrunken(entry)
        name = small.pop("name")
        by_name = ["Gemma" in name, "OLMo" in name]
        values = dataclasses.asdict(litgpt.Config(**small)) | {"padding_multiple": 0}
        kind = f"{sorted(values.items())} {by_name}"
        found.setdefault(kind, {"name": name, **small})
    kinds = {str(config["name"]): config for config in found.values()}
    llama = shrunken(
        {"norm_class_name": "RMSNorm", "bias": False, "parallel_residual": False, "mlp_class_name": "LLaMAMLP"}
        | {"n_embd": 64, "n_head": 4, "intermediate_size": 96, "rotary_percentage": 1.0}
    )
    yarn = {"factor": 4.0, "beta_fast": 32.0, "beta_slow": 1.0, "original_max_seq_len": 4096}
    latent = {"q_lora_rank": 24, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 16, "v_head_dim": 12}
    moe = llama | {"mlp_class_name": "LLaMAMoE", "n_expert": 8, "n_expert_per_token": 3, "moe_intermediate_size": 40}
    grouped = {"n_expert_groups": 4, "n_topk_groups": 2, "n_topk_scores_per_group": 2}
    kinds |= {
        "x-interleaved": llama | {"rope_interleave": True, "rotary_percentage": 0.5},
        "x-linear": llama | {"rope_adjustments": {"factor": 3.0}},
        "x-yarn": llama | {"rope_adjustments": yarn | {"mscale": 0.7, "mscale_all_dim": 1.3}, "head_size": 64},
        "x-yarn-mscale": llama | {"rope_adjustments": yarn | {"mscale": 0.7}, "head_size": 64},
        "x-yarn-all-dim": llama | {"rope_adjustments": yarn | {"mscale_all_dim": 0.7}, "head_size": 64},
        "x-no-positions": llama | {"rotary_percentage": 0.0},
        "x-layernorm-qk": llama | {"norm_qk": True, "norm_class_name": "LayerNorm"},
        "x-window-mqa": llama | {"sliding_window_size": 3, "n_query_groups": 1},
        "x-shared-expert": moe | {"n_shared_expert": 2, "routed_scaling_factor": 1.7, "first_k_dense_replace": 1},
        "x-grouped-routing": moe | grouped | {"norm_topk_prob": True, "n_shared_expert": 1},
        "x-grouped-plain": moe | grouped,
        "x-latent": llama | {"latent_attention": latent},
        "x-latent-deepseek": moe | grouped | {
            "latent_attention": latent, "rope_interleave": True, "norm_topk_prob": True, "attn_bias": True,
            "rope_adjustments": yarn | {"mscale": 1.0, "mscale_all_dim": 1.0},
        },
        "x-latent-softcap": llama | {"latent_attention": latent, "attention_logit_softcapping": 5.0},
    }  # fmt: skip
    return kinds


FAMILIES = families()


def pair(config: dict[str, Any]) -> tuple[GPT, Any]:
    """Ours and upstream's with the same random weights, norms and biases included."""
    theirs = litgpt.GPT(litgpt.Config(**config))
    generator = torch.Generator().manual_seed(0)
    for tensor in theirs.state_dict().values():
        tensor.copy_(torch.randn(tensor.shape, generator=generator) * (0.15 if tensor.dim() > 1 else 0.5))
    ours = GPT(GPTConfig(**config))
    ours.load_state_dict(theirs.state_dict())
    return ours.eval(), theirs.eval()


def tokens(batch: int = 2) -> Tensor:
    return torch.randint(100, (batch, T), generator=torch.Generator().manual_seed(1))


def relative_difference(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).abs().max() / theirs.abs().max())


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_logits_equal_upstreams(family: str) -> None:
    ours, theirs = pair(FAMILIES[family])
    expected = theirs(tokens())
    assert expected.std() > 0.05
    assert relative_difference(ours(tokens()), expected) <= TOLERANCE


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_kv_cache_equals_upstreams_full_forward(family: str) -> None:
    """Prefill four tokens, then one at a time, then a chunk; the oracle is upstream without a cache."""
    ours, theirs = pair(FAMILIES[family])
    idx = tokens()
    ours.set_kv_cache(3, max_seq_length=20)
    chunks = [(0, 4), *((i, i + 1) for i in range(4, 9)), (9, T)]
    logits = [ours(idx[:, a:b], input_pos=torch.arange(a, b)) for a, b in chunks]
    assert relative_difference(torch.cat(logits, dim=1), theirs(idx)) <= TOLERANCE


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_equal_upstreams(family: str) -> None:
    """Every parameter, relative to the largest gradient of the model; an expert without tokens has zeros here."""
    ours, theirs = pair(FAMILIES[family])
    idx = tokens()
    losses = []
    for model in (ours, theirs):
        loss = functional.cross_entropy(model(idx[:, :-1]).flatten(0, 1), idx[:, 1:].flatten())
        loss.backward()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    expected = {name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in theirs.named_parameters()}
    scale = max(float(grad.abs().max()) for grad in expected.values())
    assert scale > 1e-3
    found = {name: p.grad for name, p in ours.named_parameters()}
    assert found.keys() == expected.keys()
    for name, grad in found.items():
        assert grad is not None, name
        assert float((grad - expected[name]).abs().max()) <= TOLERANCE * scale, name
