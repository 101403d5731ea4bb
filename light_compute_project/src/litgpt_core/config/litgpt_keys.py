"""What a config of `litgpt pretrain` may say: its keys with LitGPT's defaults, how values are spelt, what was found.

The defaults are those of `litgpt/pretrain.py` in 0.5.13 and of torch's AdamW; what a key becomes here is said by
`litgpt.py`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from litgpt_core.core.errors import ConfigError
from litgpt_core.core.parsing import ParsingError, parse_yaml, read_yaml
from litgpt_core.core.text import hydra_quoted, nearest

TOP_DEFAULTS: dict[str, Any] = {
    "model_name": None,
    "model_config": None,
    "out_dir": "out/pretrain",
    "precision": None,
    "initial_checkpoint_dir": None,
    "resume": False,
    "data": "TinyLlama",
    "train": {},
    "eval": {},
    "log": {},
    "optimizer": "AdamW",
    "devices": "auto",
    "num_nodes": 1,
    "tokenizer_dir": None,
    "logger_name": "tensorboard",
    "seed": 42,
}
TRAIN_DEFAULTS: dict[str, Any] = {
    "save_interval": 1000,
    "log_interval": 1,
    "global_batch_size": 512,
    "micro_batch_size": 4,
    "lr_warmup_steps": 2000,
    "lr_warmup_fraction": None,
    "epochs": None,
    "max_tokens": 3_000_000_000_000,
    "max_steps": None,
    "max_time": None,
    "max_seq_length": None,
    "tie_embeddings": False,
    "max_norm": 1.0,
    "min_lr": 4e-5,
}
EVAL_DEFAULTS: dict[str, Any] = {
    "interval": 1000,
    "max_new_tokens": None,
    "max_iters": 100,
    "initial_validation": False,
    "final_validation": True,
    "evaluate_example": "first",
}
LOG_DEFAULTS: dict[str, Any] = {
    **dict.fromkeys(("project", "run", "group", "teamspace", "metadata", "checkpoint_name")),
    "log_model": False,
    "save_logs": True,
}
ADAMW_DEFAULTS: dict[str, Any] = {"lr": 1e-3, "betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 0.01}
ADAMW_SWITCHES = ("amsgrad", "maximize", "foreach", "fused", "capturable", "differentiable")
TEXT_FILES_DEFAULTS: dict[str, Any] = {"train_data_path": None, "val_data_path": None, "seed": 42, "num_workers": 4}


def plain_numbers(value: Any) -> Any:
    """`6e-4` is text for YAML 1.1 and a number for LitGPT; the same in groups and lists."""
    if isinstance(value, dict):
        return {str(key): plain_numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain_numbers(item) for item in value]
    if isinstance(value, str) and re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)[eE][+-]?\d+", value):
        return float(value)
    return value


def literal(value: Any) -> str:
    """A plain value in Hydra's grammar; text is always quoted."""
    if isinstance(value, str):
        return hydra_quoted(value)
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{literal(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(literal, value)) + "]"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)


def read(path: Path) -> dict[str, Any]:
    """The file as plain values, numbers as LitGPT reads them. Raises ConfigError where it is no such file."""
    try:
        content = read_yaml(path)
    except (OSError, ParsingError) as error:
        raise ConfigError(
            f"{path} cannot be read: {error}", needed="a config of `litgpt pretrain`", fix="from_litgpt=FILE.yaml"
        ) from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path} holds no settings", needed="a config of `litgpt pretrain`, such as model_name: NAME")
    return {str(key): plain_numbers(value) for key, value in content.items()}


def typed_values(overrides: Sequence[str]) -> dict[str, Any]:
    """What the other overrides say, by key; bare words as YAML reads them."""
    pairs = (text.lstrip("+").partition("=") for text in overrides if "=" in text)
    return {
        key: plain_numbers(parse_yaml(value)) if re.fullmatch(r"[\w.+-]+", value) else value for key, _, value in pairs
    }


@dataclass(kw_only=True)
class Findings:
    """One translation in progress: the settings given besides the file, and the result so far."""

    typed: dict[str, Any]
    """The other overrides of the command line, by key."""
    overrides: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def refuse(self, problem: str) -> None:
        """One more thing that cannot be done here."""
        self.problems.append(problem)

    def warn(self, message: str) -> None:
        """One more thing that is otherwise here."""
        self.warnings.append(message)

    def put(self, key: str, value: Any) -> None:
        """One setting, unless its whole group is given on the command line."""
        if key.split(".")[0] not in self.typed:
            self.overrides.append(f"{key}={literal(value)}")

    def choose(self, group: str, option: str) -> bool:
        """One option of a group; False where the command line chooses another."""
        if group not in self.typed:
            self.overrides.append(f"{group}={option}")
        return group not in self.typed

    def section(self, given: Any, name: str, defaults: dict[str, Any]) -> dict[str, Any]:
        """A group of the file with LitGPT's defaults below it; keys that LitGPT lacks are problems."""
        if given is not None and not isinstance(given, dict):
            self.refuse(f"{name}={given!r}: needed a group of settings")
            return dict(defaults)
        prefix = f"{name}." if name else ""
        for key in given or {}:
            if key not in defaults:
                hint = nearest(key, defaults)
                self.refuse(f"{prefix}{key}: `litgpt pretrain` has no such setting{hint}")
        return {**defaults, **{key: value for key, value in (given or {}).items() if key in defaults}}

    def whole(self, name: str, value: Any, *, least: int = 1) -> int:
        """`value` as a whole number, or a problem and `least`."""
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            self.refuse(f"{name}={value!r}: needed a whole number of at least {least}")
            return least
        return value

    def real(self, name: str, value: Any) -> float:
        """`value` as a number, or a problem and 1."""
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            self.refuse(f"{name}={value!r}: needed a number")
            return 1.0
        return float(value)

    def typed_number(self, key: str) -> float | None:
        """The number typed for `key`; None where none is, or several for a sweep."""
        typed = self.typed.get(key)
        return typed if isinstance(typed, (int, float)) and not isinstance(typed, bool) else None

    def typed_whole(self, key: str) -> int | None:
        """The same for a whole number."""
        typed = self.typed_number(key)
        return typed if isinstance(typed, int) else None
