"""One way to write a duration, the same for every option and setting; a number without a unit is seconds."""

from __future__ import annotations

import pytest

from litgpt_core.core.durations import seconds_of
from litgpt_core.core.errors import ConfigError


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("90", 90), ("2-12", 216_000), ("2-12:30", 217_800), ("2-12:30:05", 217_805), ("12:00:05", 43_205)],
)
def test_slurms_notation_with_days_or_three_fields(written: str, seconds: float) -> None:
    assert seconds_of(written) == seconds


@pytest.mark.parametrize("written", ["90:30", "1-", "12:345", "1-2:75"])
def test_two_fields_without_days_are_refused(written: str) -> None:
    with pytest.raises(ConfigError, match="is no duration"):
        seconds_of(written)
