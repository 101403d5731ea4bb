"""Llama and similar architectures: RMSNorm, gated SiLU, full rotation, grouped queries.

llama     biases nowhere, or everywhere       qwen2   biases in q, k, v       phi3   q, k, v and gate, up in one
mistral   as llama, with a sliding window     qwen3   queries and keys normalised
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from litgpt_core.export.huggingface.family import Family
from litgpt_core.export.huggingface.rules import Names, Rule, named_rules
from litgpt_core.export.huggingface.settings import ConfigFile, rope_out
from litgpt_core.model.config import GPTConfig


def read_common(file: ConfigFile, *, groups: int | None = None, head_size: int | None = None) -> dict[str, Any]:
    """Settings shared by all of them.

    Args:
        groups: Meaning of a missing `num_key_value_heads`; None: one for each head.
        head_size: Meaning of a missing `head_dim`; None: the width divided by the number of heads.
    """
    heads, width = file.integer("num_attention_heads"), file.integer("hidden_size")
    return {
        "block_size": file.integer("max_position_embeddings"),
        "n_layer": file.integer("num_hidden_layers"),
        "n_head": heads,
        "n_embd": width,
        "n_query_groups": file.integer("num_key_value_heads", default=groups or heads),
        "head_size": file.integer("head_dim", default=head_size or width // heads),
        "intermediate_size": file.integer("intermediate_size"),
        "norm_class_name": "RMSNorm",
        "norm_eps": file.number("rms_norm_eps", default=1e-6),
        "bias": False,
        "parallel_residual": False,
        "rotary_percentage": 1.0,
        "mlp_class_name": "LLaMAMLP",
    }


def write_common(config: GPTConfig) -> dict[str, Any]:
    """The inverse of `read_common`."""
    return {
        "max_position_embeddings": config.block_size,
        "num_hidden_layers": config.n_layer,
        "num_attention_heads": config.n_head,
        "num_key_value_heads": config.n_query_groups,
        "head_dim": config.head_size,
        "hidden_size": config.n_embd,
        "intermediate_size": config.intermediate_size,
        "rms_norm_eps": config.norm_eps,
        "attention_dropout": 0.0,
    }


def _read_llama(file: ConfigFile) -> dict[str, Any]:
    file.require_silu()
    biases = {file.flag("attention_bias", default=False), file.flag("mlp_bias", default=False)}
    if len(biases) == 2:
        raise file.wrong("attention_bias", needed="the same value as mlp_bias: here all layers have biases or none")
    return {**read_common(file), **file.rope(), "bias": biases.pop()}


def _write_llama(config: GPTConfig) -> dict[str, Any]:
    biases = {"attention_bias": config.bias, "mlp_bias": config.bias}
    return {**write_common(config), **rope_out(config), **biases, "hidden_act": "silu"}


def _read_mistral(file: ConfigFile) -> dict[str, Any]:
    file.require_silu()
    window = file.content.get("sliding_window", 4096)
    return {**read_common(file, groups=8), **file.rope(), "sliding_window_size": window}


def _write_mistral(config: GPTConfig) -> dict[str, Any]:
    written = {**write_common(config), **rope_out(config), "hidden_act": "silu"}
    return {**written, "sliding_window": config.sliding_window_size}


def windows(file: ConfigFile) -> dict[str, Any]:
    """The sliding window of Qwen 2 and 3: used only if enabled, from layer `max_window_layers` on."""
    if not file.flag("use_sliding_window", default=False):
        return {}
    types, first = file.layer_types(), file.content.get("max_window_layers", 28)
    layers = range(file.integer("num_hidden_layers"))
    marks = [int(kind == "sliding_attention") for kind in types] if types else [int(layer >= first) for layer in layers]
    return {"sliding_window_size": file.integer("sliding_window", default=4096), "sliding_window_indices": marks}


def layer_types(config: GPTConfig) -> list[str]:
    """`layer_types` for config.json."""
    marks = config.sliding_window_indices or [0] * config.n_layer
    return ["sliding_attention" if mark else "full_attention" for mark in marks]


def _write_windows(config: GPTConfig) -> dict[str, Any]:
    size = config.sliding_window_size
    written: dict[str, Any] = {"use_sliding_window": size is not None, "sliding_window": size}
    return {**written, "max_window_layers": 0, "layer_types": layer_types(config)}


def _read_qwen2(file: ConfigFile) -> dict[str, Any]:
    file.require_silu()
    return {**read_common(file, groups=32), **file.rope(), **windows(file), "attn_bias": True}


def _write_qwen2(config: GPTConfig) -> dict[str, Any]:
    written = {**write_common(config), **rope_out(config), **_write_windows(config), "hidden_act": "silu"}
    if config.head_size * config.n_head == config.n_embd:
        del written["head_dim"]  # Qwen 2 derives it
    return written


def _read_qwen3(file: ConfigFile) -> dict[str, Any]:
    file.require_silu()
    file.refuse("attention_bias", unless=False, default=False)
    return {**read_common(file, groups=32, head_size=128), **file.rope(), **windows(file), "norm_qk": True}


def _write_qwen3(config: GPTConfig) -> dict[str, Any]:
    written = {**write_common(config), **rope_out(config), **_write_windows(config)}
    return {**written, "hidden_act": "silu", "attention_bias": False}


def _read_phi3(file: ConfigFile) -> dict[str, Any]:
    file.require_silu()
    common = {**read_common(file), "norm_eps": file.number("rms_norm_eps", default=1e-5), **file.rope()}
    share = file.rotary_share("partial_rotary_factor", default=1.0)
    return {**common, "rotary_percentage": share, "sliding_window_size": file.content.get("sliding_window")}


def _write_phi3(config: GPTConfig) -> dict[str, Any]:
    written = {**write_common(config), **rope_out(config), "hidden_act": "silu", "resid_pdrop": 0.0, "embd_pdrop": 0.0}
    own = {"partial_rotary_factor": config.rotary_percentage, "original_max_position_embeddings": config.block_size}
    return {**written, **own, "sliding_window": config.sliding_window_size, "pad_token_id": None}


ATTENTION: Names = {
    "attn.qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "attn.proj": "self_attn.o_proj",
    "attn.norm_q": "self_attn.q_norm",
    "attn.norm_k": "self_attn.k_norm",
}
MLP: Names = {"mlp.fc_1": "mlp.gate_proj", "mlp.fc_2": "mlp.up_proj", "mlp.proj": "mlp.down_proj"}
OUTER: Names = {"transformer.wte": "model.embed_tokens", "transformer.ln_f": "model.norm", "lm_head": "lm_head"}
NORMS: Names = {"norm_1": "input_layernorm", "norm_2": "post_attention_layernorm"}
PHI3_JOINED: Names = {
    "attn.qkv": "self_attn.qkv_proj",
    "mlp.fc_1": "mlp.gate_up_proj",
    "mlp.fc_2": "mlp.gate_up_proj",
}


def rules(config: GPTConfig) -> Iterator[Rule]:
    """Names of Llama, Mistral, Qwen 2 and 3; Gemma's norms are in `gemma`."""
    return named_rules(config, layers="model.layers.{}", names={**OUTER, **NORMS, **ATTENTION, **MLP})


def _rules_phi3(config: GPTConfig) -> Iterator[Rule]:
    names = {**OUTER, **NORMS, **ATTENTION, **MLP, **PHI3_JOINED}
    return named_rules(config, layers="model.layers.{}", names=names)


_SHARED: dict[str, Any] = {"base": "model.", "head": "lm_head.weight"}

LLAMA = Family(
    model_type="llama", architecture="LlamaForCausalLM", read=_read_llama, write=_write_llama, rules=rules, **_SHARED
)
MISTRAL = Family(
    model_type="mistral",
    architecture="MistralForCausalLM",
    read=_read_mistral,
    write=_write_mistral,
    rules=rules,
    **_SHARED,
)
QWEN2 = Family(
    model_type="qwen2",
    architecture="Qwen2ForCausalLM",
    read=_read_qwen2,
    write=_write_qwen2,
    rules=rules,
    name_start="Qwen2.5",
    **_SHARED,
)
QWEN3 = Family(
    model_type="qwen3",
    architecture="Qwen3ForCausalLM",
    read=_read_qwen3,
    write=_write_qwen3,
    rules=rules,
    name_start="Qwen3",
    **_SHARED,
)
PHI3 = Family(
    model_type="phi3",
    architecture="Phi3ForCausalLM",
    read=_read_phi3,
    write=_write_phi3,
    rules=_rules_phi3,
    name_start="Phi-3",
    **_SHARED,
)
