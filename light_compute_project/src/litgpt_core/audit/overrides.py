"""A recorded config as arguments of `train.py`, verified by composing them: they must give exactly that config."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from litgpt_core.config.compose import compose, normalise_overrides
from litgpt_core.config.diff import differences, flatten
from litgpt_core.core.errors import ConfigError, LightComputeError
from litgpt_core.core.text import hydra_quoted


def arguments_for(target: Mapping[str, Any], *, given: Sequence[str] = ()) -> list[str]:
    """Arguments that compose to `target`: those given on the command line, then whatever is missing.

    Args:
        target: A config as plain values.
        given: The original command line's arguments; left out where they no longer compose.

    Raises:
        ConfigError: A value cannot be written as an argument.
    """
    try:
        found = [*given, *_completing(compose(normalise_overrides(given)), target)]
    except LightComputeError:
        if not given:
            raise
        return arguments_for(target)
    left = differences(dict(target), compose(normalise_overrides(found)))
    if not left:
        return found
    if given:
        return arguments_for(target)
    raise ConfigError(
        "the config cannot be written as arguments of lcp train:\n    " + "\n    ".join(line for _, line in left),
        needed="values that Hydra's grammar can express",
    )


def with_overrides(plain: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """A config with overrides on top, composed again."""
    return compose(normalise_overrides([*arguments_for(plain), *overrides]))


def _completing(composed: Mapping[str, Any], target: Mapping[str, Any]) -> list[str]:
    """Further arguments, so that `composed` becomes `target`."""
    have, want = flatten(dict(composed)), flatten(dict(target))
    gone = dict.fromkeys(_highest(key, want) for key in have if key not in want and not _holds(key, want))
    new = [f"{key}={literal(value)}" for key, value in want.items() if key not in have or have[key] != value]
    return [*(f"~{key}" for key in gone), *new]


def _holds(key: str, want: Mapping[str, Any]) -> bool:
    """Whether a wanted key lies below this one, which then is replaced by setting that."""
    return any(wanted.startswith(f"{key}.") for wanted in want)


def _highest(key: str, want: Mapping[str, Any]) -> str:
    """The shortest beginning of an unwanted key that holds nothing wanted: a table goes with its last entry."""
    parts = key.split(".")
    for length in range(2, len(parts)):
        if (beginning := ".".join(parts[:length])) not in want and not _holds(beginning, want):
            return beginning
    return key


def literal(value: Any) -> str:
    """A plain value in Hydra's grammar."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, list):
        return f"[{','.join(map(literal, value))}]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{literal(item)}" for key, item in value.items()) + "}"
    return _text(str(value))


def _text(value: str) -> str:
    """A string; in quotes unless it is a plain word that no parser takes for another type."""
    if re.fullmatch(r"\w[\w.-]*(/[\w.-]+)*", value, re.ASCII) and not _is_something_else(value):
        return value
    return hydra_quoted(value).replace("${", "\\${")


def _is_something_else(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return word.lower() in _NOT_WORDS
    return True


_NOT_WORDS = ("null", "true", "false", "yes", "no", "on", "off")
