"""Llama and similar architectures in GGUF; `gemma` and `neox` have the others.

llama    Llama, Mistral, Mixtral, SmolLM: interleaved rows, biases nowhere or everywhere, experts optional
qwen2    biases in q, k, v        qwen3  queries and keys normalised        qwen3moe  qwen3 with experts
phi3     q, k, v and gate, up in one tensor each                            olmo2     norms after the branches only

Long-context Llama 3 has its rotary frequencies as a tensor, `rope_freqs.weight` (hs / 2 divisors): see `rope_divisors`.
"""

from __future__ import annotations

from typing import Any

from litgpt_core.export.gguf.architecture import (
    ATTENTION,
    EXPERTS,
    FUSED,
    GATED,
    NORMS,
    OUTER,
    Architecture,
    read_common,
    rules_of,
    write_common,
)
from litgpt_core.export.huggingface.rules import Names
from litgpt_core.export.huggingface.settings import ConfigFile
from litgpt_core.model.config import GPTConfig


def _read_llama(file: ConfigFile) -> dict[str, Any]:
    fields = read_common(file, "llama")
    if fields["rotary_percentage"] != 1:
        raise file.wrong("llama.rope.dimension_count", needed=f"the head size, {fields['head_size']}")
    return {**fields, **_read_experts(file, "llama")}


def _write_llama(config: GPTConfig) -> dict[str, Any]:
    keys = {**write_common(config, "llama"), **_write_experts(config, "llama")}
    return {**keys, "llama.vocab_size": config.padded_vocab_size}


def _read_experts(file: ConfigFile, arch: str) -> dict[str, Any]:
    if not file.content.get(f"{arch}.expert_count"):
        return {}
    return {
        "mlp_class_name": "LLaMAMoE",
        "n_expert": file.integer(f"{arch}.expert_count"),
        "n_expert_per_token": file.integer(f"{arch}.expert_used_count"),
    }


def _write_experts(config: GPTConfig, arch: str) -> dict[str, Any]:
    if config.mlp_class_name != "LLaMAMoE":
        return {}
    return {f"{arch}.expert_count": config.n_expert, f"{arch}.expert_used_count": config.n_expert_per_token}


def _read_qwen2(file: ConfigFile) -> dict[str, Any]:
    return {**read_common(file, "qwen2"), "attn_bias": True}


def _read_qwen3(file: ConfigFile) -> dict[str, Any]:
    return {**read_common(file, "qwen3"), "norm_qk": True}


def _read_qwen3moe(file: ConfigFile) -> dict[str, Any]:
    hidden = file.integer("qwen3moe.expert_feed_forward_length")
    fields = {**read_common(file, "qwen3moe"), **_read_experts(file, "qwen3moe")}
    return {**fields, "norm_qk": True, "moe_intermediate_size": hidden}


def _write_qwen3moe(config: GPTConfig) -> dict[str, Any]:
    keys = {**write_common(config, "qwen3moe"), **_write_experts(config, "qwen3moe")}
    hidden = config.moe_intermediate_size or config.intermediate_size
    return {**keys, "qwen3moe.expert_feed_forward_length": hidden}


def _read_phi3(file: ConfigFile) -> dict[str, Any]:
    window = file.content.get("phi3.attention.sliding_window") or None
    return {**read_common(file, "phi3"), "sliding_window_size": window}


def _write_phi3(config: GPTConfig) -> dict[str, Any]:
    return {**write_common(config, "phi3"), "phi3.attention.sliding_window": 0}  # llama.cpp does not apply it


def _read_olmo2(file: ConfigFile) -> dict[str, Any]:
    return {
        **read_common(file, "olmo2"),
        "norm_1": False,
        "norm_2": False,
        "norm_qk": True,
        "norm_qk_type": "olmo2",
        "post_attention_norm": True,
        "post_mlp_norm": True,
    }


_LLAMA: Names = {**OUTER, **NORMS, **ATTENTION, **GATED, **EXPERTS}
_PHI3: Names = {
    **OUTER,
    **NORMS,
    **ATTENTION,
    **FUSED,
    "mlp.fc_1": "ffn_up",
    "mlp.fc_2": "ffn_up",
    "mlp.proj": "ffn_down",
}
_OLMO2: Names = {
    **OUTER,
    **ATTENTION,
    **GATED,
    "post_attention_norm": "post_attention_norm",
    "post_mlp_norm": "post_ffw_norm",
}
_SHARED: dict[str, Any] = {"base": "", "head": "output.weight", "ignored": r"rope_freqs\.weight|.*\.attn_rot_embd"}


def _architecture(name: str, read: Any, write: Any = None, *, names: Names = _LLAMA, **more: Any) -> Architecture:
    return Architecture(
        model_type=name,
        architecture=name,
        read=read,
        write=write or (lambda config: write_common(config, name)),
        rules=rules_of(names),
        **_SHARED,
        **more,
    )


LLAMA = _architecture("llama", _read_llama, _write_llama, interleaved=True)
QWEN2 = _architecture("qwen2", _read_qwen2, name_start="Qwen2.5")
QWEN3 = _architecture("qwen3", _read_qwen3, name_start="Qwen3")
QWEN3MOE = _architecture("qwen3moe", _read_qwen3moe, _write_qwen3moe, name_start="Qwen3")
PHI3 = _architecture("phi3", _read_phi3, _write_phi3, names=_PHI3, name_start="Phi-3")
OLMO2 = _architecture("olmo2", _read_olmo2, names=_OLMO2)
