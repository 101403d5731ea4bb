"""Tokenizers: char, byte, bpe, wordpiece, unigram and sentencepiece behind one interface.

Train, load and save; independent of models.

    from litgpt_core.tokenizers import SubwordSettings, load, train
    tokenizer = train(SubwordSettings(kind="bpe", vocab_size=4096), documents)

Names are imported on first use, so that reading settings never loads a tokenizer library.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from litgpt_core.tokenizers.base import Tokenizer as Tokenizer
    from litgpt_core.tokenizers.registry import load as load
    from litgpt_core.tokenizers.registry import train as train
    from litgpt_core.tokenizers.settings import ByteSettings as ByteSettings
    from litgpt_core.tokenizers.settings import CharSettings as CharSettings
    from litgpt_core.tokenizers.settings import SubwordSettings as SubwordSettings
    from litgpt_core.tokenizers.settings import TokenizerSettings as TokenizerSettings

_HOME = {
    "Tokenizer": "base",
    "load": "registry",
    "train": "registry",
    "ByteSettings": "settings",
    "CharSettings": "settings",
    "SubwordSettings": "settings",
    "TokenizerSettings": "settings",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> object:
    """Import the module that holds `name` on first use (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
