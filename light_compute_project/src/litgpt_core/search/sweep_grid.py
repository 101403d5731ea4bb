"""What `-m` asks for: every combination of the swept values, each with its checked config and a name of its own.

The grammar of values is Hydra's: `a,b`, `choice(a,b)`, `range(1,10,3)`, lists in brackets. Nothing is run here.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from litgpt_core.config.compose import TrainConfig, load, normalise_overrides
from litgpt_core.config.run_name import UNNAMED
from litgpt_core.config.shorthand import as_overrides
from litgpt_core.core.errors import ConfigError

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override

MAX_NAME = 120
"""Characters of a run's name; the end of a longer one becomes a hash, because file systems stop at 255 bytes."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """One run of a grid."""

    name: str
    """Its `run.name`."""
    values: dict[str, str]
    """Swept key -> this run's value, as given."""
    overrides: list[str]
    """What to type for this run alone, without `run.resume`."""
    config: TrainConfig


@dataclass(frozen=True, kw_only=True)
class SweepGrid:
    """All runs of a sweep."""

    name: str
    """Of the sweep: the base name of its runs and `-sweep`."""
    folder: Path
    """In the folder that holds the run folders."""
    axes: dict[str, list[str]]
    """Swept key -> its values, as given."""
    points: list[Point]
    resume: bool | str
    """`run.resume` as typed: whether used folders of runs may be taken into a new sweep."""


def parse(overrides: Sequence[str]) -> Iterator[tuple[str, str, Override]]:
    """`(as typed, key, parsed)` of each override.

    Raises:
        ConfigError: One of them is no override; with the nearest name where there is one.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    overrides = as_overrides(overrides)
    normalise_overrides(overrides)  # refuses a slip with its suggestion, which the parser below would not
    parser = OverridesParser.create()
    for text in overrides:
        try:
            override = parser.parse_override(text)
        except HydraException:  # `normalise_overrides` quotes such a value, so that it is none of the swept ones
            override = parser.parse_override(f"{text.partition('=')[0]}=''")
        yield text, override.key_or_group, override


def texts(override: Override) -> list[str]:
    """The values of a swept key, as given.

    Raises:
        ConfigError: There is no end of them, or none is given.
    """
    from hydra.core.override_parser.types import ValueType
    from hydra.errors import HydraException

    given = str(override.input_line)
    if override.value_type == ValueType.INTERVAL_SWEEP:
        raise ConfigError(
            f"{given}: an interval has no end of values",
            needed="values to take one after the other, such as choice(1e-3,3e-3) or range(2,9,2)",
            fix="lcp search takes intervals: lcp search +experiment=... --trials 20 " + given,
        )
    if override.value_type == ValueType.GLOB_CHOICE_SWEEP:
        raise ConfigError(f"{given}: glob() is not understood here", needed="names, as in model=tiny,nano_cpu")
    try:
        found = list(override.sweep_string_iterator())
    except HydraException as error:
        raise ConfigError(f"{given}: {error}") from error
    if not found:
        raise ConfigError(f"{given} holds no value", needed="at least one")
    return found


def make_grid(overrides: Sequence[str]) -> SweepGrid:
    """Expand and check a sweep.

    A run's name is the base name with the swept values as a suffix, because two runs cannot share a folder.

    Raises:
        ConfigError: A value is wrong, or two runs would be the same.
    """
    fixed: list[str] = []
    resume: list[str] = []
    axes: dict[str, list[str]] = {}
    for text, key, override in parse(overrides):
        if override.is_sweep_override():
            if key in axes:
                raise ConfigError(f"{key} is swept twice", needed="all its values in one place")
            axes[key] = texts(override)
        else:
            (resume if key == "run.resume" else fixed).append(text)
    points = [
        _point(fixed, dict(zip(axes, chosen, strict=True)), axes=axes) for chosen in itertools.product(*axes.values())
    ]
    twice = [name for name, count in Counter(point.name for point in points).items() if count > 1]
    if twice:
        raise ConfigError(f"{len(twice)} runs stand in this sweep twice: {', '.join(twice[:5])}", needed="each once")
    first = [f"{key}={values[0]}" for key, values in axes.items() if key != "run.name"]
    base = load([*fixed, *first, *resume]).run
    name = _shortened(f"{base.name}-sweep")
    folder = Path(base.dir).expanduser() / name
    return SweepGrid(name=name, folder=folder, axes=axes, points=points, resume=base.resume)


def _point(fixed: list[str], values: dict[str, str], *, axes: dict[str, list[str]]) -> Point:
    overrides = [*fixed, *(f"{key}={value}" for key, value in values.items())]
    config = load(overrides)
    suffix = "-".join(
        f"{key.split('.')[-1]}_{value}"
        for key, value in values.items()
        if key not in ("run.name", "run.dir") and len(axes[key]) > 1
    )
    name = config.run.name
    if suffix:
        name = _shortened(f"{name}-" + re.sub(r"[^A-Za-z0-9._]+", "-", suffix).strip("-"))
        overrides = [o for o in overrides if not o.lstrip("+").startswith("run.name=")] + [f"run.name={name}"]
        plain = {**config.plain, "run": {**config.plain["run"], "name": name}}
        config = replace(config, run=replace(config.run, name=name), plain=plain)
    elif name == UNNAMED:
        overrides = [*overrides, f"run.name={name}"]  # a run started alone would take the next number
    return Point(name=name, values=values, overrides=overrides, config=config)


def _shortened(name: str) -> str:
    if len(name) <= MAX_NAME:
        return name
    return f"{name[: MAX_NAME - 9]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
