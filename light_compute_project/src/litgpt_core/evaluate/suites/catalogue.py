"""The suites by name, and which of them are run where none is named."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from litgpt_core.core.errors import ConfigError
from litgpt_core.core.text import nearest
from litgpt_core.evaluate.items import Item
from litgpt_core.evaluate.suites.cloze import cloze
from litgpt_core.evaluate.suites.english_pairs import english_pairs
from litgpt_core.evaluate.suites.induction import induction
from litgpt_core.evaluate.suites.material import Material
from litgpt_core.evaluate.suites.python_pairs import python_pairs


@dataclass(frozen=True, kw_only=True)
class Suite:
    """One suite."""

    build: Callable[[Material, random.Random], list[Item]]
    line: str
    """For tables and help."""
    standard: bool = True
    """Whether it is run where no suite is named: two are, so that an evaluation takes a minute."""


SUITES = {
    "python_pairs": Suite(build=python_pairs, line="held-out Python against the same with one wrong token"),
    "english_pairs": Suite(build=english_pairs, line="held-out English against the same with one wrong word"),
    "induction": Suite(build=induction, line="what followed the same tokens before, in held-out text", standard=False),
    "cloze": Suite(build=cloze, line="the last word of a held-out passage", standard=False),
}
"""Only what rises over the baseline's own training beyond two standard errors stays here (`docs/evaluation.md`,
`tests/integration/test_evaluate_learning.py`)."""
ALL = "all"
BYTES = "bytes"
"""Bits per byte of texts: not a suite of items, but chosen with them."""


def build(name: str, material: Material, *, seed: int = 1) -> list[Item]:
    """The items of one suite: the same for the same material and seed, on every machine.

    Raises:
        ConfigError: There is no such suite.
    """
    check_names([name])
    return SUITES[name].build(material, random.Random(f"{seed}:{name}"))


def chosen(names: str | None, *, has_texts: bool) -> list[str]:
    """The suites that `--suite` names; without it the standard ones, or bits per byte alone where texts are given.

    Raises:
        ConfigError: There is no such suite.
    """
    if names is None:
        return [BYTES] if has_texts else [BYTES, *(name for name, suite in SUITES.items() if suite.standard)]
    given = names.split(",")
    check_names(given)
    return [BYTES, *SUITES] if ALL in given else given


def check_names(names: list[str]) -> None:
    """Raise ConfigError for the first name that is no suite."""
    for name in names:
        if name not in SUITES and name not in (ALL, BYTES):
            raise ConfigError(
                f"there is no suite {name!r}{nearest(name, [ALL, BYTES, *SUITES])}",
                fix=f"--suite {BYTES},{','.join(SUITES)}",
            )
