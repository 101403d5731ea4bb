"""The plain-Python model against the core's, for one small model of every kind that the registry knows."""

from __future__ import annotations

import dataclasses
from array import array
from typing import Any

import pytest
import torch

from litgpt_core.core.errors import CheckpointError
from litgpt_core.model.config import GPTConfig, registry_names
from litgpt_core.model.gpt import GPT
from litgpt_core.model.init import initialize
from litgpt_core.model.registry import registry_entry
from litgpt_core.pure import gpt as pure_gpt
from litgpt_core.pure.config import ModelConfig
from litgpt_core.pure.weights import Tensor

TOLERANCE = 1e-6
T = 12


def shrunken(name: str) -> dict[str, Any]:
    """The same kind of model as a registry entry, small: every switch is kept, sizes are not."""
    full = GPTConfig.from_name(name)
    small = {key: value for key, value in registry_entry(name).items() if key not in ("hf_config", "n_embd", "n_layer")}
    groups = 4 if full.n_query_groups == full.n_head else 1 if full.n_query_groups == 1 else 2
    odd_heads = full.head_size * full.n_head != full.n_embd
    small |= {"n_layer": 3, "n_head": 4, "n_embd": 32, "n_query_groups": groups, "head_size": 12 if odd_heads else 8}
    small |= {"block_size": 32, "vocab_size": 40, "padded_vocab_size": 48, "intermediate_size": 36}
    if full.n_expert:
        small |= {"n_expert": 4, "n_expert_per_token": 2}
        small["moe_intermediate_size"] = 20 if full.moe_intermediate_size else None
    if full.sliding_window_size:
        small["sliding_window_size"] = 5
    if full.rope_adjustments and "original_max_seq_len" in full.rope_adjustments:
        small["rope_adjustments"] = full.rope_adjustments | {"original_max_seq_len": 16}
    if int(full.rotary_percentage * small["head_size"]) % 2:
        small["rotary_percentage"] = 0.5
    return small


def families() -> dict[str, dict[str, Any]]:
    """One config per kind of model in the registry, and the switches that no entry uses."""
    found: dict[str, dict[str, Any]] = {}
    for name in registry_names():
        config = shrunken(name)
        by_name = ["Gemma" in name, "OLMo" in name]
        kind = f"{sorted((GPTConfig(**config).to_full_dict() | {'name': '', 'padding_multiple': 0}).items())} {by_name}"
        found.setdefault(kind, config)
    kinds = {str(config["name"]): config for config in found.values()}
    llama: dict[str, Any] = {"norm_class_name": "RMSNorm", "bias": False, "parallel_residual": False, "n_layer": 2}
    llama |= {"mlp_class_name": "LLaMAMLP", "n_embd": 32, "n_head": 4, "intermediate_size": 36, "block_size": 32}
    llama |= {"rotary_percentage": 1.0, "vocab_size": 40, "padded_vocab_size": 48}
    yarn = {"factor": 4.0, "beta_fast": 32.0, "beta_slow": 1.0, "original_max_seq_len": 4096}
    latent = {"q_lora_rank": 24, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 16, "v_head_dim": 12}
    moe = llama | {"mlp_class_name": "LLaMAMoE", "n_expert": 8, "n_expert_per_token": 3, "moe_intermediate_size": 20}
    grouped = {"n_expert_groups": 4, "n_topk_groups": 2, "n_topk_scores_per_group": 2}
    return kinds | {
        "x-learned": llama | {"position_embedding": "learned", "norm_class_name": "LayerNorm", "bias": True},
        "x-interleaved": llama | {"rope_interleave": True, "rotary_percentage": 0.5},
        "x-linear": llama | {"rope_adjustments": {"factor": 3.0}},
        "x-yarn": llama | {"rope_adjustments": yarn | {"mscale": 0.7, "mscale_all_dim": 1.3}, "head_size": 64},
        "x-yarn-mscale": llama | {"rope_adjustments": yarn | {"mscale": 0.7}, "head_size": 64},
        "x-no-positions": llama | {"rotary_percentage": 0.0},
        "x-layernorm-qk": llama | {"norm_qk": True, "norm_class_name": "LayerNorm"},
        "x-window-mqa": llama | {"sliding_window_size": 3, "n_query_groups": 1},
        "x-shared-expert": moe | {"n_shared_expert": 2, "routed_scaling_factor": 1.7, "first_k_dense_replace": 1},
        "x-grouped-routing": moe | grouped | {"norm_topk_prob": True, "n_shared_expert": 1},
        "x-grouped-plain": moe | grouped,
        "x-latent": llama | {"latent_attention": latent},
        "x-latent-deepseek": moe
        | grouped
        | {"latent_attention": latent, "rope_interleave": True, "norm_topk_prob": True, "attn_bias": True}
        | {"rope_adjustments": yarn | {"mscale": 1.0, "mscale_all_dim": 1.0}},
        "x-softcap": llama | {"attention_logit_softcapping": 5.0, "final_logit_softcapping": 3.0},
    }


FAMILIES = families()


def random_core(config: dict[str, Any]) -> GPT:
    """A model whose every weight is random, norms and biases included."""
    model = GPT(GPTConfig(**config))
    initialize(model, seed=1)
    generator = torch.Generator().manual_seed(0)
    for tensor in model.state_dict().values():
        tensor.copy_(torch.randn(tensor.shape, generator=generator) * (0.15 if tensor.dim() > 1 else 0.5))
    return model.eval()


def twin(model: GPT) -> pure_gpt.GPT:
    """The plain-Python model of the same settings and weights."""
    known = {field.name for field in dataclasses.fields(ModelConfig)}
    values = {key: value for key, value in model.config.to_full_dict().items() if key in known}
    tensors = {
        name: Tensor(tuple(tensor.shape), array("f", tensor.flatten().tolist()))
        for name, tensor in model.state_dict().items()
    }
    return pure_gpt.GPT(ModelConfig(**values), tensors)


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_logits_are_the_cores(family: str) -> None:
    """At every position, one token at a time."""
    model = random_core(FAMILIES[family])
    ids = torch.randint(40, (T,), generator=torch.Generator().manual_seed(1)).tolist()
    pure = twin(model)
    found = torch.tensor([pure.logits([token]) for token in ids], dtype=torch.float64)
    expected = model.double()(torch.tensor([ids]))[0]
    assert expected.std() > 0.05
    assert float((found - expected).abs().max()) <= TOLERANCE


@torch.no_grad()
def test_logits_of_many_tokens_at_once_are_those_after_the_last() -> None:
    pure = twin(random_core(FAMILIES["x-window-mqa"]))
    one_by_one = [pure.logits([token]) for token in (3, 1, 4, 1, 5, 9)][-1]
    pure.clear()
    assert pure.logits([3, 1]) != one_by_one
    assert pure.logits([4, 1, 5, 9]) == one_by_one


def test_settings_have_the_cores_defaults_and_derived_values() -> None:
    defaults = {field.name: field.default for field in dataclasses.fields(GPTConfig)}
    derived = {"padded_vocab_size", "head_size", "n_query_groups"}
    for field in dataclasses.fields(ModelConfig):
        assert field.default == defaults[field.name] or field.name in derived, field.name
    without_effect = {"hf_config", "intermediate_size", "moe_intermediate_size", "bias", "attn_bias", "lm_head_bias"}
    without_effect |= {"dropout", "tie_embeddings", "init_projection"}
    assert set(defaults) - {field.name for field in dataclasses.fields(ModelConfig)} == without_effect
    for name in registry_names():
        ours, core = ModelConfig(**_known(registry_entry(name))), GPTConfig.from_name(name)
        for attribute in (*sorted(derived), "rope_n_elem"):
            assert getattr(ours, attribute) == getattr(core, attribute), (name, attribute)
        for layer in range(core.n_layer):
            assert ours.window_of(layer) == core.window_of(layer)
            assert ours.mlp_class_of(layer) == core.mlp_class_of(layer)


def _known(values: dict[str, Any]) -> dict[str, Any]:
    names = {field.name for field in dataclasses.fields(ModelConfig)}
    return {key: value for key, value in values.items() if key in names}


def test_a_missing_weight_is_named() -> None:
    model = random_core(FAMILIES["x-linear"])
    pure_tensors = {
        name: Tensor(tuple(t.shape), array("f", t.flatten().tolist())) for name, t in model.state_dict().items()
    }
    del pure_tensors["transformer.h.1.attn.qkv.weight"]
    with pytest.raises(CheckpointError, match=r"no transformer\.h\.1\.attn\.qkv\.weight"):
        pure_gpt.GPT(ModelConfig(**_known(model.config.to_full_dict())), pure_tensors)


def test_a_large_model_is_refused_before_it_fills_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pure_gpt, "MOST_WEIGHTS", 1000)
    with pytest.raises(CheckpointError, match=r"weights; plain Python would need 0\.\d GB"):
        twin(random_core(FAMILIES["x-linear"]))
