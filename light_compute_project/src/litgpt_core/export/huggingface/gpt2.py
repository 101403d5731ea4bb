"""GPT-2: learned positions, LayerNorm, biases everywhere, weights stored as (in, out)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from litgpt_core.export.huggingface.family import Family
from litgpt_core.export.huggingface.rules import Names, Rule, Theirs, WeightLayout, named_rules
from litgpt_core.export.huggingface.settings import ConfigFile
from litgpt_core.model.config import GPTConfig


def _read(file: ConfigFile) -> dict[str, Any]:
    file.refuse("scale_attn_weights", unless=True, default=True)
    file.refuse("scale_attn_by_inverse_layer_idx", unless=False, default=False)
    file.refuse("add_cross_attention", unless=False, default=False)
    width = file.integer("n_embd")
    return {
        "block_size": file.integer("n_positions", default=1024),
        "n_layer": file.integer("n_layer"),
        "n_head": file.integer("n_head"),
        "n_embd": width,
        "intermediate_size": file.integer("n_inner", default=4 * width),
        "norm_class_name": "LayerNorm",
        "norm_eps": file.number("layer_norm_epsilon", default=1e-5),
        "bias": True,
        "parallel_residual": False,
        "mlp_class_name": "GptNeoxMLP",
        "gelu_approximate": file.gelu("activation_function", default="gelu_new"),
        "position_embedding": "learned",
    }


def _write(config: GPTConfig) -> dict[str, Any]:
    return {
        "n_positions": config.block_size,
        "n_ctx": config.block_size,
        "n_embd": config.n_embd,
        "n_layer": config.n_layer,
        "n_head": config.n_head,
        "n_inner": config.intermediate_size,
        "activation_function": "gelu_new" if config.gelu_approximate == "tanh" else "gelu",
        "layer_norm_epsilon": config.norm_eps,
        "resid_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "attn_pdrop": 0.0,
    }


_NAMES: Names = {
    "transformer.wte": "transformer.wte",
    "transformer.wpe": "transformer.wpe",
    "norm_1": "ln_1",
    "attn.qkv": Theirs("attn.c_attn", WeightLayout.TRANSPOSED),
    "attn.proj": Theirs("attn.c_proj", WeightLayout.TRANSPOSED),
    "norm_2": "ln_2",
    "mlp.fc": Theirs("mlp.c_fc", WeightLayout.TRANSPOSED),
    "mlp.proj": Theirs("mlp.c_proj", WeightLayout.TRANSPOSED),
    "transformer.ln_f": "transformer.ln_f",
    "lm_head": "lm_head",
}


def _rules(config: GPTConfig) -> Iterator[Rule]:
    return named_rules(config, layers="transformer.h.{}", names=_NAMES)


GPT2 = Family(
    model_type="gpt2",
    architecture="GPT2LMHeadModel",
    read=_read,
    write=_write,
    rules=_rules,
    base="transformer.",
    head="lm_head.weight",
    tied_by_default=True,
    ignored=r"\.attn\.(bias|masked_bias)$",
    always_biased=True,
)
