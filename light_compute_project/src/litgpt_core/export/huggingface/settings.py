"""Typed access to config.json; errors name the file, the key and its value.

Contains the settings that several architectures share: numbers, activations, rotary positions. Their meaning for one
architecture is in its own file.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from litgpt_core.core.errors import CheckpointError
from litgpt_core.model.config import GPTConfig

_GELUS = {
    "gelu": "none",
    "gelu_new": "tanh",
    "gelu_pytorch_tanh": "tanh",
    "gelu_fast": "tanh",
    "gelu_python": "none",
}
_SILUS = ("silu", "swish")
_UNFIT = "choose a model of the same family without this setting, or use it with transformers"

_LARGEST = 2**53
"""Numbers above it are no settings of a model, and no longer exact as floats."""


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= _LARGEST


class ConfigFile:
    """The content of one config.json."""

    def __init__(self, path: Path, content: Mapping[str, Any]) -> None:
        self.path, self.content = path, content

    def wrong(self, key: str, *, needed: str) -> CheckpointError:
        """The error for a key with an unsupported value."""
        value = self.content.get(key)
        given = f"{self.path} has no {key}." if value is None else f"{self.path} says {key}={repr(value)[:100]}."
        return CheckpointError(given, needed=needed, fix=_UNFIT if key in self.content else "")

    def integer(self, key: str, *, default: int | None = None) -> int:
        """A whole number of at least 1; `default` for a missing or null key."""
        value = default if self.content.get(key) is None else self.content[key]
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= _LARGEST:
            raise self.wrong(key, needed="a whole number of at least 1")
        return value

    def number(self, key: str, *, default: float | None = None) -> float:
        """A number above 0."""
        value = default if self.content.get(key) is None else self.content[key]
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= _LARGEST:
            raise self.wrong(key, needed="a number above 0")
        return float(value)

    def optional_number(self, key: str, *, default: float | None = None) -> float | None:
        """A number above 0, or None if the key is null; `default` if it is missing."""
        if key in self.content and self.content[key] is None:
            return None
        return None if default is None and key not in self.content else self.number(key, default=default)

    def flag(self, key: str, *, default: bool) -> bool:
        """True or false."""
        value = default if self.content.get(key) is None else self.content[key]
        if not isinstance(value, bool):
            raise self.wrong(key, needed="true or false")
        return value

    def refuse(self, key: str, *, unless: object, default: object) -> None:
        """Raise CheckpointError if a setting without a counterpart here is used."""
        if self.content.get(key, default) != unless:
            raise self.wrong(key, needed=f"{key}={unless!r}: other values are not supported here")

    def gelu(self, key: str, *, default: str) -> str:
        """`gelu_approximate` for the activation of `key`."""
        name = self.content.get(key) or default
        if not isinstance(name, str) or name not in _GELUS:
            raise self.wrong(key, needed=f"one of {', '.join(_GELUS)}")
        return _GELUS[name]

    def require_silu(self, key: str = "hidden_act") -> None:
        """Raise CheckpointError unless the activation is SiLU."""
        if self.content.get(key, "silu") not in _SILUS:
            raise self.wrong(key, needed=f"one of {', '.join(_SILUS)}")

    def layer_types(self) -> list[str] | None:
        """`layer_types`, one entry per layer, or None if missing."""
        types = self.content.get("layer_types")
        if types is None:
            return None
        known = ("full_attention", "sliding_attention")
        if not isinstance(types, list) or len(types) != self.content.get("num_hidden_layers"):
            raise self.wrong("layer_types", needed="one entry for each of num_hidden_layers layers")
        if not all(each in known for each in types):
            raise self.wrong("layer_types", needed=f"entries among {', '.join(known)}")
        return types

    # --- rotary positions: `rope_theta` and `rope_scaling`, or since transformers 5 both inside `rope_parameters`

    def rope_settings(self) -> Mapping[str, Any]:
        """The rope scaling, in either form; empty if there is none."""
        value = self.content.get("rope_scaling") or self.content.get("rope_parameters") or {}
        if not isinstance(value, dict):
            raise self.wrong("rope_scaling", needed="an object, or null")
        return value

    def rope(self, *, base_key: str = "rope_theta", settings: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """`rope_base` and `rope_adjustments`.

        Args:
            base_key: Key of the base outside the rope settings.
            settings: Rope settings of one kind of layer, where there are several.
        """
        given = self.rope_settings() if settings is None else settings
        base = given.get("rope_theta", self.content.get(base_key, 10000))
        if (
            isinstance(base, bool)
            or not isinstance(base, int | float)
            or not 1 <= base <= _LARGEST
            or base != int(base)
        ):
            raise self.wrong(base_key, needed="a whole number of at least 1")
        kind = given.get("rope_type", given.get("type", "default"))
        if kind == "default":
            return {"rope_base": int(base), "rope_adjustments": None}
        keys = {"linear": ("factor",), "llama3": ("factor", "low_freq_factor", "high_freq_factor")}
        if not isinstance(kind, str) or kind not in keys:
            raise CheckpointError(
                f"{self.path} scales its rotary positions by {kind!r}.",
                needed="default, linear or llama3: the results of other types differ from transformers",
                fix=_UNFIT,
            )
        if missing := [key for key in keys[kind] if not _is_number(given.get(key))]:
            raise CheckpointError(
                f"{self.path}: the rope settings of type {kind} lack a number {missing[0]}.",
                needed=", ".join(keys[kind]),
            )
        adjustments = {key: given[key] for key in keys[kind]}
        if kind == "llama3":
            length = given.get("original_max_position_embeddings", self.content.get("max_position_embeddings"))
            if isinstance(length, bool) or not isinstance(length, int) or not 1 <= length <= _LARGEST:
                raise self.wrong("original_max_position_embeddings", needed="a whole number of at least 1")
            adjustments["original_max_seq_len"] = length
        return {"rope_base": int(base), "rope_adjustments": adjustments}

    def rotary_share(self, *keys: str, default: float) -> float:
        """The rotated fraction of each head, from the first of `keys` that exists."""
        inside = self.rope_settings()
        places = [inside, self.content]
        found = next((place[key] for place in places for key in keys if place.get(key) is not None), default)
        if isinstance(found, bool) or not isinstance(found, int | float) or not 0 <= found <= 1:
            raise self.wrong(keys[0], needed="a number from 0 to 1")
        return float(found)


def rope_out(config: GPTConfig) -> dict[str, Any]:
    """`rope_theta` and `rope_scaling` for config.json, in the form that every version of transformers reads."""
    adjustments = config.rope_adjustments
    scaling: dict[str, Any] | None = None
    if adjustments and "low_freq_factor" in adjustments:
        kept = {key: adjustments[key] for key in ("factor", "low_freq_factor", "high_freq_factor")}
        length = adjustments["original_max_seq_len"]
        scaling = {"rope_type": "llama3", **kept, "original_max_position_embeddings": length}
    elif adjustments and set(adjustments) == {"factor"}:
        scaling = {"rope_type": "linear", "factor": adjustments["factor"]}
    elif not adjustments and config.rope_condense_ratio != 1:
        scaling = {"rope_type": "linear", "factor": float(config.rope_condense_ratio)}
    return {"rope_theta": float(config.rope_base), "rope_scaling": scaling}
