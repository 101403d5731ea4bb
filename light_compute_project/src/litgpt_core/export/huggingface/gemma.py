"""Gemma 1, 2 and 3 (text): Llama's names, norms times (1 + weight), gated GELU, scaled embeddings.

gemma    as Llama otherwise           gemma2   norms around both branches, soft caps, every other layer windowed
gemma3   norms around both branches, queries and keys normalised, windowed layers with a separate rotary base
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from litgpt_core.export.huggingface.family import Family
from litgpt_core.export.huggingface.llama import (
    ATTENTION,
    MLP,
    OUTER,
    layer_types,
    read_common,
    rules,
    write_common,
)
from litgpt_core.export.huggingface.rules import Names, Rule, named_rules
from litgpt_core.export.huggingface.settings import ConfigFile, rope_out
from litgpt_core.model.config import GPTConfig


def _read_gemma(file: ConfigFile, *, groups: int = 16) -> dict[str, Any]:
    file.refuse("attention_bias", unless=False, default=False)
    if file.flag("use_bidirectional_attention", default=False):
        raise file.wrong("use_bidirectional_attention", needed="false: attention here is causal")
    key = "hidden_act" if file.content.get("hidden_activation") is None else "hidden_activation"
    if file.content.get(key) == "gelu" and "hidden_activation" in file.content:
        key = "hidden_activation"  # null alongside "gelu": Gemma 1's first files, which mean the approximation
    return {
        **read_common(file, groups=groups, head_size=256),
        "mlp_class_name": "GemmaMLP",
        "gelu_approximate": file.gelu(key, default="gelu_pytorch_tanh"),
        "scale_embeddings": True,
    }


def _write_gemma(config: GPTConfig) -> dict[str, Any]:
    activation = "gelu_pytorch_tanh" if config.gelu_approximate == "tanh" else "gelu"
    written = {**write_common(config), "hidden_act": activation, "hidden_activation": activation}
    return {**written, "attention_bias": False}


def _read_gemma1(file: ConfigFile) -> dict[str, Any]:
    return {**_read_gemma(file), **file.rope()}


def _write_gemma1(config: GPTConfig) -> dict[str, Any]:
    return {**_write_gemma(config), **rope_out(config)}


def _read_later(file: ConfigFile, *, pattern: int, caps: tuple[float | None, float | None]) -> dict[str, Any]:
    """Settings shared by Gemma 2 and 3. Every `pattern`-th layer has full attention, the others a window."""
    scalar = file.number("query_pre_attn_scalar", default=256)
    if scalar != int(scalar):
        raise file.wrong("query_pre_attn_scalar", needed="a whole number")
    layers = range(1, file.integer("num_hidden_layers") + 1)
    types = file.layer_types() or ["full_attention" if n % pattern == 0 else "sliding_attention" for n in layers]
    return {
        **_read_gemma(file, groups=4),
        "attention_scores_scalar": int(scalar),
        "post_attention_norm": True,
        "post_mlp_norm": True,
        "sliding_window_size": file.integer("sliding_window", default=4096),
        "sliding_window_indices": [int(kind == "sliding_attention") for kind in types],
        "attention_logit_softcapping": file.optional_number("attn_logit_softcapping", default=caps[0]),
        "final_logit_softcapping": file.optional_number("final_logit_softcapping", default=caps[1]),
    }


def _write_later(config: GPTConfig) -> dict[str, Any]:
    return {
        **_write_gemma(config),
        "query_pre_attn_scalar": config.attention_scores_scalar or config.head_size,
        "sliding_window": config.sliding_window_size or config.block_size,
        "layer_types": layer_types(config),
        "attn_logit_softcapping": config.attention_logit_softcapping,
        "final_logit_softcapping": config.final_logit_softcapping,
    }


def _read_gemma2(file: ConfigFile) -> dict[str, Any]:
    return {**_read_later(file, pattern=2, caps=(50.0, 30.0)), **file.rope()}


def _write_gemma2(config: GPTConfig) -> dict[str, Any]:
    return {**_write_later(config), **rope_out(config)}


def _read_gemma3(file: ConfigFile) -> dict[str, Any]:
    fields = _read_later(file, pattern=file.integer("sliding_window_pattern", default=6), caps=(None, None))
    nested = file.rope_settings()
    local = file.number("rope_local_base_freq", default=10000.0)
    if "full_attention" in nested or "sliding_attention" in nested:
        inner, outer = (nested.get(key) or {} for key in ("sliding_attention", "full_attention"))
        if not (isinstance(inner, dict) and isinstance(outer, dict)):
            raise file.wrong("rope_parameters", needed="an object for each kind of layer")
        local = ConfigFile(file.path, inner).number("rope_theta", default=local)
        rope = file.rope(settings=outer)
    else:
        rope = file.rope(settings={"rope_theta": file.content.get("rope_theta", 1_000_000), **nested})
    return {
        **fields,
        **rope,
        "rope_local_base_freq": local,
        "rope_indices": fields["sliding_window_indices"],
        "norm_qk": True,
    }


def _write_gemma3(config: GPTConfig) -> dict[str, Any]:
    local = config.rope_local_base_freq or float(config.rope_base)
    return {**_write_later(config), **rope_out(config), "rope_local_base_freq": local}


_LATER_NORMS: Names = {
    "norm_1": "input_layernorm",
    "post_attention_norm": "post_attention_layernorm",
    "norm_2": "pre_feedforward_layernorm",
    "post_mlp_norm": "post_feedforward_layernorm",
}


def _rules_later(config: GPTConfig) -> Iterator[Rule]:
    return named_rules(config, layers="model.layers.{}", names={**OUTER, **_LATER_NORMS, **ATTENTION, **MLP})


_SHARED: dict[str, Any] = {"base": "model.", "head": "lm_head.weight", "tied_by_default": True}

GEMMA = Family(
    model_type="gemma",
    architecture="GemmaForCausalLM",
    read=_read_gemma1,
    write=_write_gemma1,
    rules=rules,
    name_start="Gemma",
    **_SHARED,
)
GEMMA2 = Family(
    model_type="gemma2",
    architecture="Gemma2ForCausalLM",
    read=_read_gemma2,
    write=_write_gemma2,
    rules=_rules_later,
    name_start="Gemma-2",
    **_SHARED,
)
GEMMA3 = Family(
    model_type="gemma3_text",
    architecture="Gemma3ForCausalLM",
    read=_read_gemma3,
    write=_write_gemma3,
    rules=_rules_later,
    name_start="Gemma-3",
    **_SHARED,
)
