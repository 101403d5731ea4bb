"""A class or function named in a config by its import path, such as `torch.optim.NAdam`: import it, check arguments.

A module of the user's own is found in the current folder, as `python -m` finds it.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from types import FunctionType
from typing import Any

from litgpt_core.core.errors import ConfigError
from litgpt_core.core.text import nearest


def import_class(path: str, *, base: str, setting: str) -> type:
    """The class that a dotted path names.

    Args:
        path: `package.module.Class`.
        base: Dotted path of the class that it must be derived from.
        setting: Dotted name of the setting that holds `path`, for messages.

    Raises:
        ConfigError: Nothing of that name can be imported, or it is not a subclass of `base`.
    """
    found = _import(path, setting=setting, example=base)
    wanted = _import(base, setting=setting, example=base)
    if not isinstance(found, type) or not issubclass(found, wanted) or found is wanted:
        raise ConfigError(f"{setting}={path}", needed=f"a subclass of {base}")
    return found


def import_function(path: str, *, example: str, setting: str) -> Callable[..., Any]:
    """The function that a dotted path names.

    Args:
        path: `package.module.function`.
        example: A path of this form, for messages.
        setting: Dotted name of the setting that holds `path`, for messages.

    Raises:
        ConfigError: Nothing of that name can be imported, or it is not a function.
    """
    found = _import(path, setting=setting, example=example)
    if not isinstance(found, FunctionType):
        raise ConfigError(f"{setting}={path}", needed="a function", fix=f"{setting}={example}")
    return found


def _import(path: str, *, setting: str, example: str) -> Any:
    module_name, _, name = path.rpartition(".")
    if not module_name or not all(part.isidentifier() for part in path.split(".")):
        given = "nothing (???)" if path in ("", "???") else repr(path)
        raise ConfigError(f"{setting}={given}", needed=f"an import path such as {example}", fix=f"{setting}={example}")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # whatever the imported code raises while it is imported
        raise ConfigError(
            f"{setting}={path}: module {module_name} cannot be imported: {type(error).__name__}: {error}",
            needed="an installed package, or a module in the current folder",
        ) from error
    if not hasattr(module, name):
        raise ConfigError(f"{setting}={path}: {module_name} has no {name!r}{nearest(name, _public(module))}")
    return getattr(module, name)


def _public(module: Any) -> list[str]:
    return [
        name
        for name, value in vars(module).items()
        if isinstance(value, type | FunctionType) and not name.startswith("_")
    ]


def arguments_of(cls: Callable[..., Any], *, supplied: Collection[str]) -> Mapping[str, inspect.Parameter]:
    """The keyword arguments of a function or a class's constructor, without those that the program passes itself."""
    parameters = inspect.signature(cls).parameters
    return {name: parameter for name, parameter in parameters.items() if name not in supplied}


def check_arguments(
    cls: Callable[..., Any], given: Mapping[str, Any], *, supplied: Collection[str], setting: str
) -> None:
    """Check names only: values are the constructor's to judge.

    Args:
        cls: The class or function to be called.
        given: The arguments in the config.
        supplied: Names that the program passes itself.
        setting: Dotted name of the setting that holds `given`, for messages.

    Raises:
        ConfigError: With every argument that is unknown, not the config's to set, or missing.
    """
    known = arguments_of(cls, supplied=supplied)
    named = {name for name, p in known.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    takes_any = any(p.kind is p.VAR_KEYWORD for p in known.values())
    problems = [f"{setting}.{name} cannot be set: the program passes it" for name in given if name in supplied]
    if not takes_any:
        problems += [
            f"unknown argument {setting}.{name} of {cls.__name__}{nearest(name, named)}"
            for name in given
            if name not in named and name not in supplied
        ]
    problems += [
        f"{setting}.{name} is missing: {cls.__name__} needs it; type {setting}.{name}=..."
        for name in sorted(named)
        if name not in given and known[name].default is inspect.Parameter.empty
    ]
    if problems:
        raise ConfigError("; ".join(problems))
