"""Which settings a training config has: every dotted key with its type, read from the settings dataclasses.

`compose.py` checks values against the same classes; here is only what may be named, for shorthand and suggestions.
"""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from typing import Any

from litgpt_core.config.loggers import CustomLoggerSettings, PlainLoggerSettings, WandbSettings
from litgpt_core.config.optional_sections import OPTIONAL_SECTIONS
from litgpt_core.config.train_config import RunSettings, SuiteCurveSettings
from litgpt_core.config.trainer import TrainerSettings
from litgpt_core.data.settings import DATA_KINDS
from litgpt_core.model.config import GPTConfig
from litgpt_core.optim.settings import AdamWSettings, CustomOptimSettings, MuonSettings
from litgpt_core.tokenizers.settings import ByteSettings, CharSettings, PretrainedSettings, SubwordSettings

KINDS: dict[str, dict[str, type]] = {
    "tokenizer": {
        "char": CharSettings,
        "byte": ByteSettings,
        **dict.fromkeys(("bpe", "wordpiece", "unigram", "sentencepiece"), SubwordSettings),
        "pretrained": PretrainedSettings,
    },
    "data": DATA_KINDS,
    "optim": {"adamw": AdamWSettings, "muon": MuonSettings, "custom": CustomOptimSettings},
    "logger": {
        "wandb": WandbSettings,
        **dict.fromkeys(("csv", "tensorboard", "none"), PlainLoggerSettings),
        "custom": CustomLoggerSettings,
    },
}
"""Group whose options are of several kinds -> kind -> its settings class."""

DATA_WITH_PATH = ("text", "jsonl", "parquet", "arrow", "tokens")
"""Kinds of `data` that need a path and have no default for it."""

_SECTIONS = ("run", "model", "tokenizer", "data", "optim", "trainer", "logger", "lora", "qat", "distill", "evaluation")
TOP_LEVEL = ("seed", "init_from", *_SECTIONS)
"""Sections of a config, and the two settings that belong to none."""

MODEL_FORBIDDEN = {
    "vocab_size": "it follows from the tokenizer: tokenizer.vocab_size=N",
    "padded_vocab_size": "it follows from the tokenizer and model.padding_multiple",
    "hf_config": "it belongs to registry entries: model=registry model.name=...",
}
"""Fields of `GPTConfig` that a training config may not set, and why."""


def model_fields() -> set[str]:
    """Names of the settings of `model` that every source but `pretrained` takes."""
    return {f.name for f in dataclasses.fields(GPTConfig) if f.init} - set(MODEL_FORBIDDEN)


@functools.cache
def settings() -> dict[str, Any]:
    """Dotted key -> type, of every setting that any kind of any group has. A setting that is a group of its own, such
    as `optim.schedule`, is followed by its settings.
    """
    hints = typing.get_type_hints(GPTConfig)
    found: dict[str, Any] = {"seed": int, "init_from": str | None, "model.source": str, "model.path": str | None}
    found |= {f"model.{name}": hints[name] for name in sorted(model_fields())}
    groups: list[tuple[str, type]] = [
        ("run", RunSettings),
        *OPTIONAL_SECTIONS.items(),
        ("evaluation", SuiteCurveSettings),
    ]
    groups += [("trainer", cls) for cls in typing.get_type_hints(TrainerSettings).values()]
    groups += [(group, cls) for group, kinds in KINDS.items() for cls in kinds.values()]
    for group, cls in groups:
        found |= _of_class(cls, path=group)
    return found


def takes_text(key: str) -> bool:
    """Whether a setting holds text, whatever that text looks like: a name, a path, an address."""
    annotation = settings().get(key)
    return annotation is str or (_is_optional(annotation) and set(typing.get_args(annotation)) == {str, type(None)})


def takes_flag(key: str) -> bool:
    """Whether `true` is a value of a setting, so that its name alone can mean it."""
    annotation = settings().get(key)
    return annotation is bool or (_is_optional(annotation) and bool in typing.get_args(annotation))


def takes_null(key: str) -> bool:
    """Whether `null` is a value of a setting."""
    annotation = settings().get(key)
    return _is_optional(annotation) and type(None) in typing.get_args(annotation)


def takes_whole_number(key: str) -> bool:
    """Whether a setting is a whole number and never another one."""
    annotation = settings().get(key)
    members = typing.get_args(annotation) if _is_optional(annotation) else (annotation,)
    return int in members and float not in members


def takes_texts(key: str) -> bool:
    """Whether a setting is a list of texts."""
    return bool(settings().get(key) == list[str])


def _is_optional(annotation: Any) -> bool:
    return typing.get_origin(annotation) in (types.UnionType, typing.Union)


def _of_class(cls: type, *, path: str) -> dict[str, Any]:
    hints = typing.get_type_hints(cls)
    found: dict[str, Any] = {}
    for field in dataclasses.fields(cls):
        key, annotation = f"{path}.{field.name}", hints[field.name]
        found[key] = annotation
        if dataclasses.is_dataclass(annotation) and isinstance(annotation, type):
            found |= _of_class(annotation, path=key)
    return found
