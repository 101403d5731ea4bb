"""What an architecture of GGUF is: the keys of its settings, the names of its tensors, and what differs in the numbers.

Names and settings are described as for Hugging Face folders, by a `Family`; two things differ from them in the numbers:

    interleaved    rows of queries and keys: pairs that are rotated together are neighbours        llama
    unit_offset    norms store 1 + weight                                                           gemma

        rows of one head, hs = 8      here  a0 a1 a2 a3 b0 b1 b2 b3      in the file  a0 b0 a1 b1 a2 b2 a3 b3
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from litgpt_core.core.errors import CheckpointError
from litgpt_core.export.huggingface.family import Family
from litgpt_core.export.huggingface.rules import Names, Rule, named_rules
from litgpt_core.export.huggingface.settings import ConfigFile
from litgpt_core.model.config import GPTConfig

if TYPE_CHECKING:
    from torch import Tensor

GELU_KEY = "litgpt.gelu_approximate"
"""Ours: "none" or "tanh". llama.cpp always computes the tanh form."""


@dataclass(frozen=True, kw_only=True)
class Architecture(Family):
    """One `general.architecture`. `model_type` is its name; `read` and `write` work on the metadata."""

    interleaved: bool = False
    unit_offset: bool = False
    head_required: bool = False
    """llama.cpp needs `output.weight` even if it equals the embedding."""
    fused_names: Names | None = None
    """Other names, for files with queries, keys and values in one tensor."""
    computes_tanh: bool = False
    """llama.cpp computes the tanh form of GELU, whatever the model was trained with."""

    def to_file(self, name: str, tensor: Tensor, config: GPTConfig) -> Tensor:
        """The numbers of a tensor as the file has them."""
        if (heads := self._heads(name, config)) is not None:
            return _reordered(tensor, heads, 2)
        return tensor.float() + 1 if self._has_offset(name) else tensor

    def from_file(self, name: str, tensor: Tensor, config: GPTConfig) -> Tensor:
        """The inverse of `to_file`."""
        if (heads := self._heads(name, config)) is not None:
            return _reordered(tensor, heads, config.head_size // 2)
        return tensor - 1 if self._has_offset(name) else tensor

    def _heads(self, name: str, config: GPTConfig) -> int | None:
        found = re.fullmatch(r"blk\.\d+\.attn_([qk])\.(weight|bias)", name) if self.interleaved else None
        return None if found is None else (config.n_head if found[1] == "q" else config.n_query_groups)

    def _has_offset(self, name: str) -> bool:
        return self.unit_offset and name.endswith("norm.weight")


def _reordered(tensor: Tensor, heads: int, parts: int) -> Tensor:
    """Rows of every head, counted as (parts, rest), reordered to (rest, parts)."""
    counted = tensor.reshape(heads, parts, -1, *tensor.shape[1:])
    return counted.transpose(1, 2).reshape(tensor.shape)


# --- settings that all architectures share


def read_common(file: ConfigFile, arch: str) -> dict[str, Any]:
    """Sizes, norm and rotation from the keys `ARCH.*`."""
    heads, width = file.integer(f"{arch}.attention.head_count"), file.integer(f"{arch}.embedding_length")
    head_size = file.integer(f"{arch}.attention.key_length", default=width // heads)
    if file.integer(f"{arch}.attention.value_length", default=head_size) != head_size:
        raise file.wrong(f"{arch}.attention.value_length", needed=f"{head_size}, as for keys")
    rms = f"{arch}.attention.layer_norm_rms_epsilon" in file.content
    rotated = file.integer(f"{arch}.rope.dimension_count", default=head_size)
    if rotated > head_size:
        raise file.wrong(f"{arch}.rope.dimension_count", needed=f"at most the head size, {head_size}")
    return {
        "block_size": file.integer(f"{arch}.context_length"),
        "n_layer": file.integer(f"{arch}.block_count"),
        "n_head": heads,
        "n_embd": width,
        "n_query_groups": file.integer(f"{arch}.attention.head_count_kv", default=heads),
        "head_size": head_size,
        "intermediate_size": file.integer(f"{arch}.feed_forward_length"),
        "norm_class_name": "RMSNorm" if rms else "LayerNorm",
        "norm_eps": file.number(f"{arch}.attention.layer_norm_{'rms_' if rms else ''}epsilon"),
        "bias": not rms,
        "parallel_residual": False,
        "rotary_percentage": rotated / head_size,
        "mlp_class_name": "LLaMAMLP" if rms else "GptNeoxMLP",
        **_read_rope(file, arch),
    }


def _read_rope(file: ConfigFile, arch: str) -> dict[str, Any]:
    base = file.number(f"{arch}.rope.freq_base", default=10000.0)
    if base != int(base):
        raise file.wrong(f"{arch}.rope.freq_base", needed="a whole number")
    kind = file.content.get(f"{arch}.rope.scaling.type", "none")
    factor = file.content.get(f"{arch}.rope.scaling.factor", file.content.get(f"{arch}.rope.scale_linear"))
    if kind not in ("none", "linear"):
        raise file.wrong(f"{arch}.rope.scaling.type", needed="none or linear; the result would differ for others")
    adjustments = None if factor in (None, 1.0) or (kind == "none" and factor == 0) else {"factor": float(factor)}
    return {"rope_base": int(base), "rope_adjustments": adjustments}


def write_common(config: GPTConfig, arch: str) -> dict[str, Any]:
    """The inverse of `read_common`."""
    kind = "rms_" if config.norm_class_name == "RMSNorm" else ""
    keys: dict[str, Any] = {
        "context_length": config.block_size,
        "embedding_length": config.n_embd,
        "block_count": config.n_layer,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.n_head,
        "attention.head_count_kv": config.n_query_groups,
        "attention.key_length": config.head_size,
        "attention.value_length": config.head_size,
        f"attention.layer_norm_{kind}epsilon": float(config.norm_eps),
    }
    if config.position_embedding == "rope":
        keys |= {"rope.dimension_count": config.rope_n_elem, "rope.freq_base": float(config.rope_base)}
        factor = rope_factor(config)
        if factor != 1:
            keys |= {"rope.scaling.type": "linear", "rope.scaling.factor": factor}
    return {f"{arch}.{key}": value for key, value in keys.items()}


def rope_factor(config: GPTConfig) -> float:
    """The factor of linear rope scaling; 1 without."""
    adjustments = config.rope_adjustments
    if adjustments and set(adjustments) == {"factor"}:
        return float(adjustments["factor"])
    return 1.0 if adjustments else float(config.rope_condense_ratio)


def read_gelu(file: ConfigFile, *, default: str) -> dict[str, Any]:
    """`gelu_approximate`: ours if this project wrote the file, else what such models were trained with."""
    found = file.content.get(GELU_KEY, default)
    if found not in ("none", "tanh"):
        raise file.wrong(GELU_KEY, needed="none or tanh")
    return {"gelu_approximate": found}


# --- names that most share

OUTER: Names = {
    "transformer.wte": "token_embd",
    "transformer.wpe": "position_embd",
    "transformer.ln_f": "output_norm",
    "lm_head": "output",
}
NORMS: Names = {"norm_1": "attn_norm", "norm_2": "ffn_norm"}
ATTENTION: Names = {
    "attn.qkv": ("attn_q", "attn_k", "attn_v"),
    "attn.proj": "attn_output",
    "attn.norm_q": "attn_q_norm",
    "attn.norm_k": "attn_k_norm",
}
FUSED: Names = {"attn.qkv": "attn_qkv"}
GATED: Names = {"mlp.fc_1": "ffn_gate", "mlp.fc_2": "ffn_up", "mlp.proj": "ffn_down"}
PLAIN: Names = {"mlp.fc": "ffn_up", "mlp.proj": "ffn_down"}
EXPERTS: Names = {
    "mlp.gate": "ffn_gate_inp",
    "mlp.experts.fc_1": "ffn_gate_exps",
    "mlp.experts.fc_2": "ffn_up_exps",
    "mlp.experts.proj": "ffn_down_exps",
}


def rules_of(names: Names) -> Any:
    """The `rules` of an architecture with these names."""

    def rules(config: GPTConfig) -> Iterator[Rule]:
        return named_rules(config, layers="blk.{}", names=names)

    return rules


def metadata_file(path: Path, metadata: Mapping[str, Any]) -> ConfigFile:
    """Typed access to the settings in the metadata. Raises CheckpointError for per-layer values, which no model has."""
    for key, value in metadata.items():
        if key.startswith("tokenizer.") or isinstance(value, str | int | float | bool):
            continue
        if "attention." in key or "feed_forward" in key:
            if len(set(map(float, value))) != 1:
                raise CheckpointError(
                    f"{path} gives {key} per layer.", needed="one value for all layers", fix="choose another model"
                )
            return metadata_file(path, {**metadata, key: value[0].item()})
    return ConfigFile(path, metadata)
