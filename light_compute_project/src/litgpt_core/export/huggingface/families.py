"""Chooses the architecture of a folder, or the architecture that a model can be exported as.

Whether an architecture fits a model is tested by a round trip: the model's settings are written as that architecture's
config.json, read back, and compared by `what_computes`. If they are equal, the export is exact; otherwise it is
refused, with the settings that would be lost.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from litgpt_core.core.errors import CheckpointError, ConfigError
from litgpt_core.export.huggingface.family import Family
from litgpt_core.export.huggingface.folder import AGAIN
from litgpt_core.export.huggingface.gemma import GEMMA, GEMMA2, GEMMA3
from litgpt_core.export.huggingface.gpt2 import GPT2
from litgpt_core.export.huggingface.llama import LLAMA, MISTRAL, PHI3, QWEN2, QWEN3
from litgpt_core.export.huggingface.neox import GPT_NEOX, PHI
from litgpt_core.export.huggingface.settings import ConfigFile
from litgpt_core.model.config import GPTConfig

FAMILIES = (LLAMA, QWEN3, QWEN2, MISTRAL, GPT2, GPT_NEOX, PHI, PHI3, GEMMA, GEMMA2, GEMMA3)
"""In the order in which `choose` tries them."""

_NO_EFFECT = {"name", "hf_config", "vocab_size", "padding_multiple", "dropout", "tie_embeddings", "init_projection"}
_ROPE = {"rope_base", "rope_adjustments", "rope_condense_ratio", "rope_interleave", "rope_local_base_freq"}
_EXPERTS = {
    "moe_intermediate_size",
    "n_expert",
    "n_shared_expert",
    "n_expert_groups",
    "n_topk_groups",
    "n_topk_scores_per_group",
    "n_expert_per_token",
    "first_k_dense_replace",
    "routed_scaling_factor",
    "norm_topk_prob",
}


def recognise(file: ConfigFile) -> Family:
    """The family of a config.json.

    Raises:
        CheckpointError: It is unknown, or not a language model; lists the known families and the closest one.
    """
    known = {family.model_type: family for family in FAMILIES}
    model_type = file.content.get("model_type")
    if not isinstance(model_type, str) or model_type not in known:
        near = difflib.get_close_matches(str(model_type), known, n=1, cutoff=0.4)
        closest = f"; the closest is {near[0]}" if near else ""
        raise CheckpointError(
            f"{file.path} describes a model of type {model_type!r}, which is unknown here.",
            needed=f"model_type {', '.join(sorted(known))}{closest}",
            fix="litgpt download supports more architectures, and its directories work here",
        )
    family = known[model_type]
    given = file.content.get("architectures") or [family.architecture]
    if not isinstance(given, list):
        raise file.wrong("architectures", needed="a list of class names")
    if not any(str(name).endswith(("ForCausalLM", "LMHeadModel", "Model")) for name in given):
        raise CheckpointError(
            f"{file.path} describes {', '.join(map(str, given))}.",
            needed=f"a language model, such as {family.architecture}",
            fix="use the folder of the language model",
        )
    return family


def read_config(file: ConfigFile, *, name: str) -> tuple[Family, GPTConfig]:
    """The family of a config.json, and the GPTConfig of its model. Values of any type may stand under any key.

    `vocab_size` and `padded_vocab_size` are both the rows of the embedding. Raises CheckpointError as `recognise`, and
    for a setting without a counterpart here.
    """
    family = recognise(file)
    rows = file.integer("vocab_size")
    try:
        settings = family.read(file)
    except CheckpointError:
        raise
    except Exception as problem:  # a list instead of a name, a number that is none
        raise CheckpointError(
            f"{file.path} has a setting that cannot be read ({type(problem).__name__}: {str(problem)[:200]}).",
            needed=f"settings of a {family.architecture}",
            fix=AGAIN,
        ) from problem
    fields = {
        "name": family.model_name(name),
        "vocab_size": rows,
        "padded_vocab_size": rows,
        "tie_embeddings": file.flag("tie_word_embeddings", default=family.tied_by_default),
        **settings,
    }
    try:
        return family, GPTConfig(**fields)
    except ConfigError as problem:
        raise CheckpointError(
            f"{file.path} describes a model that cannot be built. {problem.given}", needed=problem.needed, fix=AGAIN
        ) from problem


def write_config(family: Family, config: GPTConfig) -> dict[str, Any]:
    """config.json of a model of this family, without token ids."""
    return {
        "architectures": [family.architecture],
        "model_type": family.model_type,
        **family.write(config),
        "vocab_size": config.padded_vocab_size,
        "tie_word_embeddings": config.tie_embeddings,
    }


def choose(config: GPTConfig) -> tuple[Family, GPTConfig]:
    """The first family that computes the same as `config`, and the config that defines names and shapes.

    Families that match the model's name are tried first, so that an imported model is exported as its original family.

    A model without biases may match a family whose layers have them; the returned config then has `bias=True`, and the
    added weights are zeros.

    Raises:
        CheckpointError: There is none; lists the settings that the closest one would lose.
    """
    losses: dict[str, list[str]] = {}
    for family in sorted(FAMILIES, key=lambda family: not family.is_named_by(config.name)):
        candidate = config
        if family.always_biased and not config.bias:
            candidate = dataclasses.replace(config, bias=True, lm_head_bias=config.lm_head_bias or family is PHI)
        lost = lost_settings(family, candidate)
        if not lost:
            return family, candidate
        losses[family.architecture] = lost
    closest = min(losses, key=lambda name: len(losses[name]))
    raise CheckpointError(
        f"No supported Hugging Face architecture is equivalent to the model {config.name!r}; the closest, {closest}, "
        f"differs in {'; '.join(losses[closest])}.",
        needed=f"a model equivalent to one of {', '.join(family.architecture for family in FAMILIES)}",
        fix="litgpt convert_from_litgpt supports more architectures",
    )


def lost_settings(family: Family, config: GPTConfig) -> list[str]:
    """Settings that a model would lose as this family, as `field: given, there`; empty if none."""
    try:
        written = ConfigFile(Path("config.json"), write_config(family, config))
        _, back = read_config(written, name=family.model_type)
    except CheckpointError as problem:
        return [problem.given]
    return different_settings(config, back)


def different_settings(here: GPTConfig, there: GPTConfig) -> list[str]:
    """What two models compute differently, as `field (value here, value there)`; empty if they are equivalent."""
    before, after = what_computes(here), what_computes(there)
    different = [key for key in {**before, **after} if before.get(key) != after.get(key)]
    keys = [key for key in different if key in before and key in after] or different
    return [f"{key} ({before.get(key)} here, {after.get(key)} there)" for key in keys]


def what_computes(config: GPTConfig) -> Mapping[str, Any]:
    """The settings that determine a model's outputs, normalised: two models are equivalent if these are equal."""
    values = {key: value for key, value in config.to_full_dict().items() if key not in _NO_EFFECT}
    rms = config.norm_class_name == "RMSNorm"
    values["norms times (1 + weight)"] = rms and "Gemma" in config.name
    values["norms without weights"] = not rms and "OLMo" in config.name
    values["attention_scores_scalar"] = config.attention_scores_scalar or config.head_size
    values["rotary_percentage"] = config.rope_n_elem
    values["attn_bias"] = config.attn_bias or config.bias
    values["norm_qk_type"] = config.norm_qk_type if config.norm_qk else None
    values["shared_attention_norm"] = config.shared_attention_norm and config.parallel_residual
    values["sliding_window_size"] = [config.window_of(layer) for layer in range(config.n_layer)]
    del values["sliding_window_indices"]
    if config.mlp_class_name in ("LLaMAMLP", "LLaMAMoE"):
        del values["gelu_approximate"]
    if config.mlp_class_name != "LLaMAMoE":
        values = {key: value for key, value in values.items() if key not in _EXPERTS}
    return {**{key: value for key, value in values.items() if key not in _ROPE | {"rope_indices"}}, **_rotation(config)}


def _rotation(config: GPTConfig) -> dict[str, Any]:
    """The rotary settings, normalised; empty without rotation."""
    if not config.rope_n_elem:
        return {}
    scaling = config.rope_adjustments or {}
    if not scaling and config.rope_condense_ratio != 1:
        scaling = {"factor": config.rope_condense_ratio}
    marks = config.rope_indices or [0] * config.n_layer
    local = config.rope_local_base_freq
    return {
        "rope_base": [local if local is not None and mark else float(config.rope_base) for mark in marks],
        "rope_adjustments": [{} if mark else scaling for mark in marks],
        "rope_condense_ratio": config.rope_condense_ratio if config.rope_adjustments else 1,
        "rope_interleave": config.rope_interleave,
    }
