"""The settings of a model from `model_config.yaml`, without PyYAML: fields of `GPTConfig` that decide its logits."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from litgpt_core.core.errors import CheckpointError


@dataclass(kw_only=True)
class ModelConfig:
    """`GPTConfig`'s fields, defaults and derived sizes; see there what each means. A test compares the two."""

    name: str = ""
    block_size: int = 4096
    n_layer: int = 16
    n_embd: int = 4096
    vocab_size: int = 50254
    padding_multiple: int = 512
    padded_vocab_size: int = 0
    norm_class_name: str = "LayerNorm"
    norm_eps: float = 1e-5
    norm_qk: bool = False
    norm_qk_type: str = "default"
    post_attention_norm: bool = False
    post_mlp_norm: bool = False
    parallel_residual: bool = True
    shared_attention_norm: bool = False
    n_head: int = 32
    head_size: int = 0
    n_query_groups: int = 0
    attention_scores_scalar: int | None = None
    sliding_window_size: int | None = None
    sliding_window_indices: list[int] | None = None
    attention_logit_softcapping: float | None = None
    rope_base: int = 10000
    rotary_percentage: float = 0.25
    rope_condense_ratio: int = 1
    rope_adjustments: dict[str, Any] | None = None
    rope_interleave: bool = False
    mlp_class_name: str = "GptNeoxMLP"
    gelu_approximate: str = "none"
    n_expert: int = 0
    n_shared_expert: int | None = None
    n_expert_groups: int | None = None
    n_topk_groups: int | None = None
    n_topk_scores_per_group: int | None = None
    n_expert_per_token: int = 0
    first_k_dense_replace: int | None = None
    routed_scaling_factor: float = 1.0
    norm_topk_prob: bool = False
    scale_embeddings: bool = False
    final_logit_softcapping: float | None = None
    norm_1: bool = True
    norm_2: bool = True
    latent_attention: dict[str, Any] | None = None
    rope_local_base_freq: float | None = None
    rope_indices: list[int] | None = None
    position_embedding: str = "rope"

    def __post_init__(self) -> None:
        self.head_size = self.head_size or self.n_embd // self.n_head
        self.n_query_groups = self.n_query_groups or self.n_head
        rounded = -(-self.vocab_size // self.padding_multiple) * self.padding_multiple
        self.padded_vocab_size = self.padded_vocab_size or rounded

    @property
    def rope_n_elem(self) -> int:
        """Rotated numbers of each head; 0 with learned positions."""
        if self.position_embedding == "learned":
            return 0
        if self.latent_attention is not None:
            return int(self.latent_attention["qk_rope_head_dim"])
        return int(self.rotary_percentage * self.head_size)

    def window_of(self, layer: int) -> int | None:
        """How many tokens this layer sees, its own included, or None for all."""
        marks = self.sliding_window_indices
        return None if marks is not None and not marks[layer] else self.sliding_window_size

    def mlp_class_of(self, layer: int) -> str:
        """`mlp_class_name`, but a plain LLaMAMLP in the first layers of some mixtures of experts."""
        return "LLaMAMLP" if layer < (self.first_k_dense_replace or 0) else self.mlp_class_name


def read_config(directory: Path) -> ModelConfig:
    """The settings of a checkpoint directory. Raises CheckpointError if the file is missing or not understood."""
    path = directory / "model_config.yaml"
    try:
        written = read_yaml(path.read_text(encoding="utf-8"))
        values = {}
        for field in fields(ModelConfig):
            value = written.get(field.name)
            if value is not None:
                if field.default is not None and not isinstance(value, _kinds(field.default)):
                    raise ValueError(f"{field.name} is {value!r}")
                values[field.name] = value
        return ModelConfig(**values)
    except (OSError, ValueError, TypeError, ZeroDivisionError) as problem:
        raise CheckpointError(
            f"{path} cannot be read: {problem}", needed="the settings of a model, as a training run writes them"
        ) from problem


def _kinds(default: object) -> tuple[type, ...]:
    return (int, float) if isinstance(default, float) else (type(default),)


def read_yaml(text: str) -> dict[str, Any]:
    """The part of YAML that settings are written in: `key: value`, indented blocks, and lists of `- value` lines.

    >>> read_yaml("n_layer: 2\\nrope_adjustments:\\n  factor: 8.0\\nmarks:\\n- 1\\n- 0")
    {'n_layer': 2, 'rope_adjustments': {'factor': 8.0}, 'marks': [1, 0]}
    """
    lines = [line.rstrip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith(("#", "---"))]
    value, rest = _block(lines, 0)
    if rest or not isinstance(value, dict):
        raise ValueError(f"unexpected line {rest[0] if rest else lines[:1]!r}")
    return value


def _block(lines: list[str], indent: int) -> tuple[Any, list[str]]:
    """The mapping or list whose lines are indented so, and the lines after it."""
    mapping: dict[str, Any] = {}
    items: list[Any] = []
    while lines and len(lines[0]) - len(lines[0].lstrip()) == indent:
        line, lines = lines[0].strip(), lines[1:]
        if line.startswith("- "):
            items.append(_scalar(line[2:].strip()))
            continue
        if items:  # a list at the indentation of its key has ended
            return items, [" " * indent + line, *lines]
        found = re.fullmatch(r"([\w.-]+):(?:\s+(.*))?", line)
        if found is None:
            raise ValueError(f"not understood: {line!r}")
        key, written = found[1], found[2] or ""
        if written:
            mapping[key] = _scalar(written)
        elif lines and (deeper := len(lines[0]) - len(lines[0].lstrip())) > indent:
            mapping[key], lines = _block(lines, deeper)
        elif lines and lines[0].startswith(" " * indent + "- "):
            mapping[key], lines = _block(lines, indent)
        else:
            mapping[key] = None
    return (items or mapping), lines


def _scalar(written: str) -> Any:
    """A value as YAML reads it."""
    if written[0] in "'\"":
        return written[1:-1].replace("''", "'")
    written = re.sub(r"\s+#.*", "", written)
    if written.startswith("[") and written.endswith("]"):
        return [_scalar(each.strip()) for each in written[1:-1].split(",") if each.strip()]
    if written == "{}":
        return {}
    words = {"true": True, "false": False, "null": None, "~": None}
    if written.lower() in words:
        return words[written.lower()]
    if written[0] in "&*!|>{[":
        raise ValueError(f"not understood: {written!r}")
    for kind in (int, float):
        try:
            return kind(written)
        except ValueError:
            continue
    return written
