"""Durations as people write them, in seconds, and seconds as people read them. Standard library only."""

from __future__ import annotations

import math
import re

from litgpt_core.core.errors import ConfigError

Duration = str | float
"""As people write it: `90m`, `2h30m`, `1.5h`, `00:11:30:00`, or a number of seconds."""

EXAMPLES = "90m, 2h30m, 1.5d, hours as 11:30:00, days as 01:11:30:00, 1-11:30:00 or 1-11, or a number of seconds"

_SECONDS = {"d": 86_400.0, "h": 3_600.0, "m": 60.0, "s": 1.0}
_UNITS = re.compile(r"(?:(\d+(?:\.\d+)?)d)?(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?")
_CLOCK = re.compile(r"(?:(\d+)[-:])?(\d+):([0-5]?\d):([0-5]?\d)")
_DAYS = re.compile(r"(\d+)-(\d+)(?::([0-5]?\d))?")
"""SLURM's `1-11` and `1-11:30`: after days come hours."""

YAML_BASE_60 = 60**3
"""YAML 1.1 reads a bare `1:02:30:00` as one number in base 60, which is not what a clock means from here on."""


def seconds_of(duration: Duration) -> float:
    """Seconds of a duration as people write it.

    A number without a unit is seconds, for every option and setting. `HH:MM:SS` and Lightning's `DD:HH:MM:SS` are
    taken, as are SLURM's `D-HH`, `D-HH:MM` and `D-HH:MM:SS`. Two fields are refused: `1:30` is minutes to one and hours
    to another.

    Raises:
        ConfigError: It is none of these, or not above 0.
    """
    if not isinstance(duration, str) and YAML_BASE_60 <= duration < math.inf:
        raise ConfigError(
            f"{duration:.12g} could be a clock such as 1:02:30:00 that YAML has read as a number",
            needed="such a clock in quotes, or seconds with their unit",
            fix=f'"01:02:30:00", or {duration:.12g}s',
        )
    seconds = _read(duration.strip().lower()) if isinstance(duration, str) else float(duration)
    if seconds is None or not 0 < seconds < math.inf:
        raise ConfigError(f"{duration!r} is no duration", needed=f"something like {EXAMPLES}")
    return seconds


def _read(text: str) -> float | None:
    if not text:
        return None
    if clock := _CLOCK.fullmatch(text) or _DAYS.fullmatch(text):
        fields = zip(_SECONDS.values(), clock.groups(default="0"), strict=False)
    elif units := _UNITS.fullmatch(text):
        fields = zip(_SECONDS.values(), units.groups(default="0"), strict=True)
    else:
        return float(text) if re.fullmatch(r"\d+(?:\.\d+)?", text) else None
    return sum(size * float(number) for size, number in fields)


def duration_text(seconds: float) -> str:
    """`1 d 2 h`, `2 h 30 min`, `45 s`: the two largest units."""
    whole = round(seconds)
    days, hours, minutes = whole // 86_400, whole // 3_600 % 24, whole // 60 % 60
    parts = [(days, "d"), (hours, "h"), (minutes, "min"), (whole % 60, "s")]
    first = next((i for i, (number, _) in enumerate(parts) if number), 3)
    shown = [f"{number} {unit}" for number, unit in parts[first : first + 2] if number]
    return " ".join(shown) or "0 s"
