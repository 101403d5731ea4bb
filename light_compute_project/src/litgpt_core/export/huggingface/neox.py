"""GPT-NeoX (Pythia) and Phi-1/Phi-2: LayerNorm, biases, partly rotated heads, attention and MLP in parallel."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from litgpt_core.export.huggingface.family import Family
from litgpt_core.export.huggingface.rules import Names, Rule, Theirs, WeightLayout, named_rules
from litgpt_core.export.huggingface.settings import ConfigFile, rope_out
from litgpt_core.model.config import GPTConfig


def _read_common(file: ConfigFile) -> dict[str, Any]:
    return {
        "block_size": file.integer("max_position_embeddings"),
        "n_layer": file.integer("num_hidden_layers"),
        "n_head": file.integer("num_attention_heads"),
        "n_embd": file.integer("hidden_size"),
        "intermediate_size": file.integer("intermediate_size"),
        "norm_class_name": "LayerNorm",
        "norm_eps": file.number("layer_norm_eps", default=1e-5),
        "bias": True,
        "mlp_class_name": "GptNeoxMLP",
    }


def _write_common(config: GPTConfig) -> dict[str, Any]:
    return {
        "max_position_embeddings": config.block_size,
        "num_hidden_layers": config.n_layer,
        "num_attention_heads": config.n_head,
        "hidden_size": config.n_embd,
        "intermediate_size": config.intermediate_size,
        "layer_norm_eps": config.norm_eps,
        "attention_dropout": 0.0,
    }


def _read_neox(file: ConfigFile) -> dict[str, Any]:
    file.refuse("attention_bias", unless=True, default=True)
    return {
        **_read_common(file),
        "gelu_approximate": file.gelu("hidden_act", default="gelu"),
        "parallel_residual": file.flag("use_parallel_residual", default=True),
        "rotary_percentage": file.rotary_share("partial_rotary_factor", "rotary_pct", default=0.25),
        **file.rope(base_key="rotary_emb_base" if "rotary_emb_base" in file.content else "rope_theta"),
    }


def _write_neox(config: GPTConfig) -> dict[str, Any]:
    rope = rope_out(config)
    return {
        **_write_common(config),
        "hidden_act": "gelu_pytorch_tanh" if config.gelu_approximate == "tanh" else "gelu",
        "hidden_dropout": 0.0,
        "use_parallel_residual": config.parallel_residual,
        "rotary_pct": config.rotary_percentage,
        "rotary_emb_base": rope["rope_theta"],
        "rope_scaling": rope["rope_scaling"],
    }


_NEOX_NAMES: Names = {
    "transformer.wte": "gpt_neox.embed_in",
    "norm_1": "input_layernorm",
    "attn.qkv": Theirs("attention.query_key_value", WeightLayout.INTERLEAVED),
    "attn.proj": "attention.dense",
    "norm_2": "post_attention_layernorm",
    "mlp.fc": "mlp.dense_h_to_4h",
    "mlp.proj": "mlp.dense_4h_to_h",
    "transformer.ln_f": "gpt_neox.final_layer_norm",
    "lm_head": "embed_out",
}


def _rules_neox(config: GPTConfig) -> Iterator[Rule]:
    return named_rules(config, layers="gpt_neox.layers.{}", names=_NEOX_NAMES)


def _read_phi(file: ConfigFile) -> dict[str, Any]:
    file.refuse("qk_layernorm", unless=False, default=False)
    return {
        **_read_common(file),
        "n_query_groups": file.integer("num_key_value_heads", default=file.integer("num_attention_heads")),
        "gelu_approximate": file.gelu("hidden_act", default="gelu_new"),
        "parallel_residual": True,
        "shared_attention_norm": True,
        "lm_head_bias": True,
        "rotary_percentage": file.rotary_share("partial_rotary_factor", default=0.5),
        **file.rope(),
    }


def _write_phi(config: GPTConfig) -> dict[str, Any]:
    return {
        **_write_common(config),
        "num_key_value_heads": config.n_query_groups,
        "hidden_act": "gelu_new" if config.gelu_approximate == "tanh" else "gelu",
        "partial_rotary_factor": config.rotary_percentage,
        "qk_layernorm": False,
        "resid_pdrop": 0.0,
        "embd_pdrop": 0.0,
        **rope_out(config),
    }


_PHI_NAMES: Names = {
    "transformer.wte": "model.embed_tokens",
    "norm_1": "input_layernorm",
    "attn.qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "attn.proj": "self_attn.dense",
    "mlp.fc": "mlp.fc1",
    "mlp.proj": "mlp.fc2",
    "transformer.ln_f": "model.final_layernorm",
    "lm_head": "lm_head",
}


def _rules_phi(config: GPTConfig) -> Iterator[Rule]:
    return named_rules(config, layers="model.layers.{}", names=_PHI_NAMES)


GPT_NEOX = Family(
    model_type="gpt_neox",
    architecture="GPTNeoXForCausalLM",
    read=_read_neox,
    write=_write_neox,
    rules=_rules_neox,
    base="gpt_neox.",
    head="embed_out.weight",
    ignored=r"\.attention\.(bias|masked_bias|rotary_emb\.inv_freq)$",
    always_biased=True,
)

PHI = Family(
    model_type="phi",
    architecture="PhiForCausalLM",
    read=_read_phi,
    write=_write_phi,
    rules=_rules_phi,
    base="model.",
    head="lm_head.weight",
    name_start="phi",
    always_biased=True,
)
