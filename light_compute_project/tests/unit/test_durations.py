"""Every option and setting that takes a duration reads `90` as 90 seconds."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from litgpt_core.config.compose import load
from litgpt_core.config.diff import flatten
from litgpt_core.core.durations import seconds_of
from litgpt_core.deploy.job_request import JobRequest

PROJECT = Path(__file__).resolve().parents[2]
IN_NAME = r"(?:time|timeout|grace|duration)"


def settings() -> list[str]:
    """Settings that take a duration by their name; a unit in the name leaves no question.

    The page lists every setting, which `test_config_tables.py` holds it to.
    """
    page = (PROJECT / "docs" / "configuration.md").read_text(encoding="utf-8")
    keys = re.findall(r"^\| `([\w.]+)` \|", page, re.MULTILINE)
    return sorted({key for key in keys if re.search(rf"[._]{IN_NAME}$", key)})


def options() -> set[str]:
    """Options of every command that take a duration by their name."""
    found = set()
    for folder in (PROJECT / "scripts", PROJECT / "src"):
        for path in folder.rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            found |= set(re.findall(rf'"--((?:[a-z]+[-_])*{IN_NAME})"', text))
    return {name.replace("-", "_") for name in found}


def test_ninety_is_ninety_seconds_for_every_setting() -> None:
    keys = settings()
    assert {"trainer.max_time", "trainer.hang_timeout", "logger.init_timeout"} <= {*keys}
    composed = load(["+experiment=smoke", "logger=wandb", *(f"{key}=90" for key in keys)])
    for key in keys:
        assert seconds_of(flatten(composed.plain)[key]) == 90, key


READERS: dict[str, Callable[[str], float | None]] = {
    "time": lambda text: JobRequest(time=text, signal_grace=1).seconds,
    "signal_grace": lambda text: JobRequest(signal_grace=text).grace_s,
    "timeout": seconds_of,  # of study.py
}
"""Option -> what it makes of its text."""


def test_every_option_with_a_duration_is_known_here() -> None:
    assert options() == {*READERS}, "a new option with a duration reads it by core.durations.seconds_of"


@pytest.mark.parametrize("option", READERS)
def test_ninety_is_ninety_seconds_for_every_option(option: str) -> None:
    assert READERS[option]("90") == 90 == READERS[option]("1.5m")
