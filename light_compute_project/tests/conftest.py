"""For every test."""

import sys

import pytest

from litgpt_core.core import console


@pytest.fixture(autouse=True)
def _scripts_end_by_an_exception(monkeypatch: pytest.MonkeyPatch) -> None:
    """A script that is called in this process must not end it for good."""
    monkeypatch.setattr(console, "_leave", sys.exit)
