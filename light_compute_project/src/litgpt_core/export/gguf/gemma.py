"""Gemma 1, 2 and 3 (text) in GGUF: norms store 1 + weight, embeddings are scaled, the output layer is tied.

What llama.cpp takes for granted, and files do not say, is checked when a model is written: every second layer of
Gemma 2 and five of six of Gemma 3 have a window; scores are divided by the square root of the head size, except in the
27B models.
"""

from __future__ import annotations

from typing import Any

from litgpt_core.export.gguf.architecture import (
    ATTENTION,
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

_DIVIDED_BY_WIDTH = {"gemma2": 46, "gemma3": 62}
"""Layers of the 27B models, whose scores are divided by sqrt(n_embd / n_head)."""


def _read(file: ConfigFile, arch: str) -> dict[str, Any]:
    fields = read_common(file, arch)
    return {**fields, "mlp_class_name": "GemmaMLP", "gelu_approximate": "tanh", "scale_embeddings": True}


def _read_later(file: ConfigFile, arch: str, *, pattern: int) -> dict[str, Any]:
    fields = _read(file, arch)
    layers, wide = fields["n_layer"], fields["n_layer"] == _DIVIDED_BY_WIDTH[arch]
    pattern = file.integer(f"{arch}.attention.sliding_window_pattern", default=pattern)
    return {
        **fields,
        "attention_scores_scalar": fields["n_embd"] // fields["n_head"] if wide else fields["head_size"],
        "post_attention_norm": True,
        "post_mlp_norm": True,
        "sliding_window_size": file.integer(f"{arch}.attention.sliding_window"),
        "sliding_window_indices": [int(layer % pattern < pattern - 1) for layer in range(layers)],
        "attention_logit_softcapping": _cap(file, f"{arch}.attn_logit_softcapping"),
        "final_logit_softcapping": _cap(file, f"{arch}.final_logit_softcapping"),
    }


def _cap(file: ConfigFile, key: str) -> float | None:
    return file.number(key) if file.content.get(key) else None


def _read_gemma2(file: ConfigFile) -> dict[str, Any]:
    fields = _read_later(file, "gemma2", pattern=2)
    if not fields["final_logit_softcapping"] or not fields["attention_logit_softcapping"]:
        fields |= {"attention_logit_softcapping": 50.0, "final_logit_softcapping": 30.0}  # files before the keys
    return fields


def _read_gemma3(file: ConfigFile) -> dict[str, Any]:
    fields = _read_later(file, "gemma3", pattern=6)
    return {
        **fields,
        "rope_local_base_freq": file.number("gemma3.rope.freq_base_swa", default=10000.0),
        "rope_indices": fields["sliding_window_indices"],
        "norm_qk": True,
    }


def _write_later(config: GPTConfig, arch: str) -> dict[str, Any]:
    keys = {
        **write_common(config, arch),
        f"{arch}.attention.sliding_window": config.sliding_window_size or config.block_size,
    }
    caps = {
        "attn_logit_softcapping": config.attention_logit_softcapping,
        "final_logit_softcapping": config.final_logit_softcapping,
    }
    return keys | {f"{arch}.{name}": float(cap) for name, cap in caps.items() if cap is not None}


def _write_gemma3(config: GPTConfig) -> dict[str, Any]:
    local = config.rope_local_base_freq or float(config.rope_base)
    return {**_write_later(config, "gemma3"), "gemma3.rope.freq_base_swa": float(local)}


_LATER: Names = {
    "norm_1": "attn_norm",
    "post_attention_norm": "post_attention_norm",
    "norm_2": "ffn_norm",
    "post_mlp_norm": "post_ffw_norm",
}
_SHARED: dict[str, Any] = {"base": "", "head": "output.weight", "unit_offset": True, "ignored": r"rope_freqs\.weight"}

GEMMA = Architecture(
    model_type="gemma",
    architecture="gemma",
    read=lambda file: _read(file, "gemma"),
    write=lambda config: write_common(config, "gemma"),
    rules=rules_of({**OUTER, **NORMS, **ATTENTION, **GATED}),
    name_start="Gemma",
    **_SHARED,
)
GEMMA2 = Architecture(
    model_type="gemma2",
    architecture="gemma2",
    read=_read_gemma2,
    write=lambda config: _write_later(config, "gemma2"),
    rules=rules_of({**OUTER, **_LATER, **ATTENTION, **GATED}),
    name_start="Gemma-2",
    **_SHARED,
)
GEMMA3 = Architecture(
    model_type="gemma3",
    architecture="gemma3",
    read=_read_gemma3,
    write=_write_gemma3,
    rules=rules_of({**OUTER, **_LATER, **ATTENTION, **GATED}),
    name_start="Gemma-3",
    **_SHARED,
)
