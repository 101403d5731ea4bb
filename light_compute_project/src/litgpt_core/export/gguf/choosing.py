"""Which architecture of GGUF computes the same as a model: written as its keys, read back, compared.

As for Hugging Face folders, a model that would lose a setting is refused, with the settings that would be lost.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from litgpt_core.core.errors import CheckpointError
from litgpt_core.export.gguf.architecture import Architecture, metadata_file
from litgpt_core.export.gguf.architectures import ARCHITECTURES
from litgpt_core.export.gguf.llama import LLAMA
from litgpt_core.export.huggingface.families import different_settings
from litgpt_core.model.config import GPTConfig


def choose(config: GPTConfig) -> tuple[Architecture, GPTConfig]:
    """The first architecture that computes the same, and the config that defines names and shapes.

    That config differs from the given one where architectures have biases that the model lacks: they are zeros.

    Raises:
        CheckpointError: There is none; lists the settings that the closest one would lose.
    """
    losses: dict[str, list[str]] = {}
    for architecture in sorted(ARCHITECTURES, key=lambda each: not each.is_named_by(config.name)):
        candidate = config
        if architecture.always_biased and not config.bias:
            candidate = dataclasses.replace(
                config, bias=True, lm_head_bias=config.lm_head_bias or architecture.model_type == "phi2"
            )
        lost = lost_settings(architecture, candidate)
        if not lost:
            return architecture, candidate
        losses[architecture.model_type] = lost
    closest = min(losses, key=lambda name: len(losses[name]))
    raise CheckpointError(
        f"No architecture of GGUF is equivalent to the model {config.name!r}; the closest, {closest}, differs in "
        f"{'; '.join(losses[closest])}.",
        needed=f"a model equivalent to one of {', '.join(each.model_type for each in ARCHITECTURES)}",
        fix="--format huggingface, or another format",
    )


def lost_settings(architecture: Architecture, config: GPTConfig) -> list[str]:
    """Settings that a model would lose as this architecture; empty if none."""
    if config.mlp_class_name == "GptNeoxMLP" and not architecture.always_biased:  # the kind of MLP is no key of a file
        return ["mlp_class_name (GptNeoxMLP here, gated there)"]
    before = normalised(architecture, config)
    try:
        fields = architecture.read(metadata_file(Path("metadata"), architecture.write(before)))
        fields |= {"bias": before.bias} if architecture is LLAMA else {}
        after = GPTConfig(
            **{
                "name": architecture.model_name(architecture.model_type),
                "vocab_size": before.padded_vocab_size,
                "padded_vocab_size": before.padded_vocab_size,
                **fields,
            }
        )
    except CheckpointError as problem:
        return [problem.given]
    return different_settings(before, after)


def normalised(architecture: Architecture, config: GPTConfig) -> GPTConfig:
    """The config without what does not change results here, or is stored elsewhere in the file."""
    changes: dict[str, Any] = {}
    if config.sliding_window_size is not None and config.sliding_window_size >= config.block_size:
        later = architecture.model_type in ("gemma2", "gemma3")
        changes |= {} if later else {"sliding_window_size": None, "sliding_window_indices": None}
    if architecture is LLAMA and has_divisors(config):
        changes["rope_adjustments"] = None
    return dataclasses.replace(config, **changes)


def has_divisors(config: GPTConfig) -> bool:
    """Whether the rotation is stored as `rope_freqs.weight`."""
    return bool(config.rope_adjustments) and "low_freq_factor" in (config.rope_adjustments or {})
