"""GPT-2: learned positions, LayerNorm, biases everywhere, weights stored as (in, out)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from litgpt_core.export.huggingface.family import Family
from litgpt_core.export.huggingface.rules import Layout, Rule, linear
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


def _rules(config: GPTConfig) -> Iterator[Rule]:
    yield from linear("transformer.wte", "transformer.wte", bias=False)
    yield from linear("transformer.wpe", "transformer.wpe", bias=False)
    for layer in range(config.n_layer):
        block = f"transformer.h.{layer}"
        yield from linear(f"{block}.norm_1", f"{block}.ln_1", bias=True)
        yield from linear(f"{block}.attn.qkv", f"{block}.attn.c_attn", bias=True, layout=Layout.TRANSPOSED)
        yield from linear(f"{block}.attn.proj", f"{block}.attn.c_proj", bias=True, layout=Layout.TRANSPOSED)
        yield from linear(f"{block}.norm_2", f"{block}.ln_2", bias=True)
        yield from linear(f"{block}.mlp.fc", f"{block}.mlp.c_fc", bias=True, layout=Layout.TRANSPOSED)
        yield from linear(f"{block}.mlp.proj", f"{block}.mlp.c_proj", bias=True, layout=Layout.TRANSPOSED)
    yield from linear("transformer.ln_f", "transformer.ln_f", bias=True)
    yield from linear("lm_head", "lm_head", bias=False)


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
