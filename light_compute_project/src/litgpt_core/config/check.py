"""Plain values -> frozen settings: every leaf is checked by pydantic against its type, strictly, and every problem is
told with its dotted name, the nearest valid name and the place where it was written.
"""

from __future__ import annotations

import dataclasses
import typing
from typing import Any

from litgpt_core.config.source import Source
from litgpt_core.config.trainer import TrainerSettings
from litgpt_core.core.errors import LightComputeError
from litgpt_core.core.text import nearest


def check_section(plain: dict[str, Any], path: str, cls: type, source: Source, problems: list[str]) -> Any:
    """One section of a config as `cls`; problems are appended, and None is returned if there were any."""
    return check_value(plain.get(path), cls, path=path, source=source, problems=problems)


def check_value(value: Any, wanted: Any, *, path: str, source: Source, problems: list[str]) -> Any:
    """A value as the type `wanted`: a settings class, or whatever else pydantic knows; None after a problem."""
    if dataclasses.is_dataclass(wanted) and isinstance(wanted, type):
        return _dataclass(value, wanted, path=path, source=source, problems=problems)
    from pydantic import ConfigDict, TypeAdapter, ValidationError

    try:
        return TypeAdapter(wanted, config=ConfigDict(strict=True, allow_inf_nan=False)).validate_python(value)
    except ValidationError as error:
        needs = "; or ".join(dict.fromkeys(item["msg"].removeprefix("Input should be ") for item in error.errors()))
        given = "nothing (???)" if value in (None, "???") else f"{value!r}"
        problems.append(f"{path}={given}: needed {needs}{source.where(path)}")
        return None


def check_trainer(value: Any, source: Source, problems: list[str]) -> TrainerSettings | None:
    """The `trainer` section, whose keys stand side by side, as its six groups; None after a problem."""
    if not isinstance(value, dict):
        problems.append(_no_group("trainer", value, source))
        return None
    groups = typing.get_type_hints(TrainerSettings)
    home = {field.name: group for group, cls in groups.items() for field in dataclasses.fields(cls)}
    before = len(problems)
    problems += [_unknown("trainer", key, home, source) for key in value if key not in home]
    built = {}
    for group, cls in groups.items():
        own = {key: item for key, item in value.items() if home.get(key) == group}
        built[group] = _dataclass(own, cls, path="trainer", source=source, problems=problems)
    return TrainerSettings(**built) if len(problems) == before else None


def _dataclass(value: Any, cls: type, *, path: str, source: Source, problems: list[str]) -> Any:
    if not isinstance(value, dict):
        problems.append(_no_group(path, value, source))
        return None
    hints = typing.get_type_hints(cls, include_extras=True)
    fields = {f.name: f for f in dataclasses.fields(cls)}
    before, built = len(problems), {}
    for key, item in value.items():
        if key not in fields:
            problems.append(_unknown(path, key, fields, source))
        else:
            built[key] = check_value(item, hints[key], path=f"{path}.{key}", source=source, problems=problems)
    for name, field in fields.items():
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and name not in value:
            problems.append(f"{path}.{name} is missing: type {path}.{name}=...")
    if len(problems) > before:
        return None
    try:
        return cls(**built)
    except LightComputeError as error:
        problems.append(str(error))
        return None


def _no_group(path: str, value: Any, source: Source) -> str:
    return f"{path}={value!r}: needed a group of settings{source.where(path)}"


def _unknown(path: str, key: Any, known: typing.Iterable[str], source: Source) -> str:
    where = f"{path}.{key}"
    return f"unknown setting {where}{nearest(str(key), known)}{source.where(where)}"
