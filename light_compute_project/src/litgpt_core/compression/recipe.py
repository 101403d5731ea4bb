"""A recipe: the steps of one compression, by name or from a YAML file; reports all problems at once. No torch.

steps:
  - {method: awq, bits: 4}
  - {method: gptq, bits: 4, head: 8}
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from litgpt_core.compression.named_recipes import RECIPES
from litgpt_core.compression.settings import METHODS, Mixed, Quantizing
from litgpt_core.compression.step import STAGES, Step
from litgpt_core.compression.training_settings import Qat, Reconstruct
from litgpt_core.core.errors import ConfigError
from litgpt_core.core.parsing import ParsingError, parse_yaml, read_yaml
from litgpt_core.core.text import nearest


@dataclass(frozen=True)
class CompressionRecipe:
    """Checked steps in order."""

    name: str
    steps: tuple[Step, ...]

    @property
    def needs_text(self) -> bool:
        """Whether a step reads calibration text."""
        return any(step.needs_text for step in self.steps)

    def plain(self) -> list[dict[str, Any]]:
        """For records: every step with all its values."""
        return [{"method": step.method, **_plain_fields(step)} for step in self.steps]


def _plain_fields(step: Step) -> dict[str, Any]:
    return {key: list(value) if isinstance(value, tuple) else value for key, value in dataclasses.asdict(step).items()}


def load_recipe(text: str, *, changes: Sequence[str] = ()) -> CompressionRecipe:
    """The recipe of that name, or in that YAML file.

    Args:
        text: A name of `RECIPES`, or a path.
        changes: `key=value`, each for all steps that have the key.

    Raises:
        ConfigError: No such recipe, or everything that is wrong with it.
    """
    file = Path(text)
    if text in RECIPES:
        name, given = text, [dict(step) for step in RECIPES[text]]
    elif file.suffix in (".yaml", ".yml"):
        name, given = file.stem, _read(file)
    else:
        raise ConfigError(
            f"There is no recipe {text!r}{nearest(text, RECIPES)}.",
            needed=f"one of {', '.join(RECIPES)}, or a YAML file with steps",
            fix="lcp compress --help",
        )
    problems: list[str] = []
    for change in changes:
        problems += _change(given, change)
    return check_recipe(name, given, problems=problems)


def _read(file: Path) -> list[Any]:
    try:
        found = read_yaml(file)
    except (OSError, ParsingError) as problem:
        raise ConfigError(f"{file} cannot be read: {problem}", needed="a YAML file with a list `steps`") from problem
    steps = found.get("steps") if isinstance(found, dict) and set(found) == {"steps"} else None
    if not isinstance(steps, list) or not steps:
        raise ConfigError(
            f"{file} holds no list of steps.",
            needed="steps: a list such as [{method: round, bits: 4}], and no other key",
        )
    return steps


def _change(steps: list[Any], change: str) -> list[str]:
    key, equals, value = change.partition("=")
    meant = [s for s in steps if isinstance(s, dict) and key in _fields(METHODS.get(str(s.get("method"))))]
    if not equals or not meant:
        return [f"--set {change}: no step has a setting of that name"]
    for step in meant:
        step[key] = parse_yaml(value)
    return []


def _fields(kind: type[Step] | None) -> dict[str, dataclasses.Field[Any]]:
    return {} if kind is None else {field.name: field for field in dataclasses.fields(kind)}


def check_recipe(name: str, given: Sequence[Any], *, problems: Sequence[str] = ()) -> CompressionRecipe:
    """Steps from plain values.

    Raises:
        ConfigError: Lists every unknown method and setting, every wrong value, and steps in an order without sense.
    """
    found, steps = list(problems), []
    for number, entry in enumerate(given, 1):
        step, wrong = _step(entry)
        found += [f"step {number}: {text}" for text in wrong]
        if step is not None:
            steps.append(step)
    found += _order_problems(steps)
    if found:
        count = f"{len(found)} problem{'s' if len(found) > 1 else ''}"
        raise ConfigError(
            f"The recipe {name} has {count}:\n" + "\n".join(f"    {text}" for text in found),
            needed="steps with known settings, in the order " + ", ".join(STAGES),
        )
    return CompressionRecipe(name, tuple(steps))


def _step(entry: Any) -> tuple[Step | None, list[str]]:
    if not isinstance(entry, Mapping) or entry.get("method") not in METHODS:
        method = entry.get("method") if isinstance(entry, Mapping) else entry
        return None, [f"no method {method!r}{nearest(str(method), METHODS)}; one of {', '.join(METHODS)}"]
    kind = METHODS[entry["method"]]
    fields = _fields(kind)
    wrong = [
        f"{kind.method} has no setting {key!r}{nearest(str(key), fields)}"
        for key in entry
        if key not in (*fields, "method")
    ]
    values = {}
    for key in fields.keys() & entry.keys():
        value, default = entry[key], fields[key].default
        if isinstance(default, tuple) and isinstance(value, list):
            value = tuple(map(str, value))
        if isinstance(default, float) and isinstance(value, str):  # YAML takes 1e-4 for a text
            with contextlib.suppress(ValueError):
                value = float(value)
        if not _fits(value, default):
            wrong.append(f"{key}={value!r}: like {default!r}")
        else:
            values[key] = value
    step = kind(**values)
    return step, [*wrong, *(f"{kind.method}: {text}" for text in step.problems())]


def _fits(value: Any, default: Any) -> bool:
    if isinstance(value, bool) or isinstance(default, bool):
        return isinstance(value, bool) and isinstance(default, bool)
    if value is None:
        return bool(default == 8)  # only `head` may be null
    if isinstance(default, float):
        return isinstance(value, int | float)
    return isinstance(value, type(default))


def _order_problems(steps: Sequence[Step]) -> list[str]:
    found = []
    for before, after in itertools.pairwise(steps):
        if STAGES.index(before.stage) > STAGES.index(after.stage):
            found.append(
                f"{after.method} ({after.stage}) after {before.method} ({before.stage}) would undo or ignore it"
            )
        elif before.stage == after.stage and before.stage in ("prune", "quantize"):
            found.append(f"{after.method} after {before.method}: the matrices are stored in one form")
    integers = [step for step in steps if isinstance(step, Quantizing)]
    for step in steps:
        if not isinstance(step, Qat | Reconstruct):
            continue
        if [one.bits for one in integers] != [step.bits]:
            found.append(
                f"{step.method} with bits={step.bits} needs one step before it that rounds to {step.bits} bits"
            )
        if any(isinstance(one, Mixed) for one in integers):
            found.append(f"{step.method} after mixed: all matrices must have the same number of bits")
    if {"prune", "quantize"} <= {step.stage for step in steps}:
        found.append("integers after zeros or ranks: no layer has both forms; use one of them")
    return found
