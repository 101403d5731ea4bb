"""Names of packages that are imported when they are first used."""

from __future__ import annotations

import importlib

import pytest


@pytest.mark.parametrize(
    "package", ["checkpoint", "evaluate", "generation", "interpret", "model", "prompts", "runs", "tokenizers"]
)
def test_every_name_that_a_package_lists_is_there(package: str) -> None:
    module = importlib.import_module(f"litgpt_core.{package}")
    assert module.__all__ and set(module.__all__) <= set(dir(module))
    for name in module.__all__:
        assert getattr(module, name) is not None
    with pytest.raises(AttributeError, match=f"'litgpt_core.{package}' has no attribute 'nothing'"):
        module.nothing  # noqa: B018
