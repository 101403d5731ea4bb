"""What the tokenizer tests share: a little real Python, and every kind trained on it once."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest

from litgpt_core.tokenizers.base import Tokenizer
from litgpt_core.tokenizers.registry import train
from litgpt_core.tokenizers.settings import (
    SUBWORD_KINDS,
    ByteSettings,
    CharSettings,
    SubwordSettings,
    TokenizerSettings,
)

VOCAB_SIZE = 1024


def small_settings(kind: str, *, vocab_size: int = VOCAB_SIZE) -> TokenizerSettings:
    """Small settings for `kind`."""
    if kind == "char":
        return CharSettings()
    if kind == "byte":
        return ByteSettings()
    return SubwordSettings(kind=kind, vocab_size=vocab_size)  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def settings_of() -> Callable[..., TokenizerSettings]:
    """The function above, for test modules (which cannot import a conftest)."""
    return small_settings


@pytest.fixture(scope="session")
def python_documents() -> list[str]:
    """About 300 kB of networkx, which is a dependency and the same wherever its version is the same."""
    spec = importlib.util.find_spec("networkx")
    assert spec is not None and spec.origin is not None
    files = sorted((Path(spec.origin).parent / "algorithms").glob("*.py"))[:24]
    return [file.read_text(encoding="utf-8") for file in files] + ["Grüße, 世界! \t tab\r\n"]


@pytest.fixture(scope="session")
def trained(python_documents: list[str]) -> dict[str, Tokenizer]:
    """One tokenizer of every kind."""
    return {kind: train(small_settings(kind), python_documents) for kind in ("char", "byte", *SUBWORD_KINDS)}
