"""Architectures with LayerNorm and biases everywhere in GGUF: GPT-2, GPT-NeoX (Pythia), Phi-1 and Phi-2.

gpt2       learned positions                    gptneox    partly rotated heads, attention and MLP in parallel or not
phi2       one norm for both branches, a bias on the logits

llama.cpp computes GELU in its tanh form for all of them. Pythia was trained with the exact form: small differences
there are llama.cpp's, not the file's.
"""

from __future__ import annotations

from typing import Any

from litgpt_core.export.gguf.architecture import (
    ATTENTION,
    FUSED,
    GELU_KEY,
    NORMS,
    OUTER,
    PLAIN,
    Architecture,
    read_common,
    read_gelu,
    rules_of,
    write_common,
)
from litgpt_core.export.huggingface.rules import Names
from litgpt_core.export.huggingface.settings import ConfigFile
from litgpt_core.model.config import GPTConfig


def _read_gpt2(file: ConfigFile) -> dict[str, Any]:
    return {**read_common(file, "gpt2"), **read_gelu(file, default="tanh"), "position_embedding": "learned"}


def _read_neox(file: ConfigFile) -> dict[str, Any]:
    fields = {**read_common(file, "gptneox"), **read_gelu(file, default="none")}
    return {**fields, "parallel_residual": file.flag("gptneox.use_parallel_residual", default=True)}


def _write_neox(config: GPTConfig) -> dict[str, Any]:
    return {**_write(config, "gptneox"), "gptneox.use_parallel_residual": config.parallel_residual}


def _read_phi2(file: ConfigFile) -> dict[str, Any]:
    shared = {"parallel_residual": True, "shared_attention_norm": True, "lm_head_bias": True}
    return {**read_common(file, "phi2"), **read_gelu(file, default="tanh"), **shared}


def _write(config: GPTConfig, arch: str) -> dict[str, Any]:
    return {**write_common(config, arch), GELU_KEY: config.gelu_approximate}


_NAMES: Names = {**OUTER, **NORMS, **ATTENTION, **PLAIN}
_SHARED: dict[str, Any] = {
    "base": "",
    "head": "output.weight",
    "always_biased": True,
    "computes_tanh": True,
    "ignored": r".*\.attn_rot_embd|.*\.attn\.(masked_)?bias",
}

GPT2 = Architecture(
    model_type="gpt2",
    architecture="gpt2",
    read=_read_gpt2,
    write=lambda config: _write(config, "gpt2"),
    rules=rules_of({**_NAMES, **FUSED}),
    **_SHARED,
)
GPT_NEOX = Architecture(
    model_type="gptneox",
    architecture="gptneox",
    read=_read_neox,
    write=_write_neox,
    rules=rules_of({**_NAMES, **FUSED}),
    head_required=True,
    **_SHARED,
)
PHI2 = Architecture(
    model_type="phi2",
    architecture="phi2",
    read=_read_phi2,
    write=lambda config: _write(config, "phi2"),
    rules=rules_of(_NAMES),
    fused_names={**_NAMES, **FUSED},
    name_start="phi",
    head_required=True,
    **_SHARED,
)
