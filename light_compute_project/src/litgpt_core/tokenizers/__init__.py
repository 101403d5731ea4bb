"""Tokenizers: char, byte, bpe, wordpiece, unigram and sentencepiece behind one interface.

Train, load and save; independent of models.

    from litgpt_core.tokenizers import SubwordSettings, load, train
    tokenizer = train(SubwordSettings(kind="bpe", vocab_size=4096), documents)

Names are imported on first use, so that reading settings never loads a tokenizer library.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from litgpt_core.core.lazy import lazy_names

if TYPE_CHECKING:
    from litgpt_core.tokenizers.base import Tokenizer as Tokenizer
    from litgpt_core.tokenizers.registry import load as load
    from litgpt_core.tokenizers.registry import train as train
    from litgpt_core.tokenizers.settings import ByteSettings as ByteSettings
    from litgpt_core.tokenizers.settings import CharSettings as CharSettings
    from litgpt_core.tokenizers.settings import SubwordSettings as SubwordSettings
    from litgpt_core.tokenizers.settings import TokenizerSettings as TokenizerSettings

__all__, __getattr__, __dir__ = lazy_names(
    __name__,
    {
        "base": "Tokenizer",
        "registry": "load train",
        "settings": "ByteSettings CharSettings SubwordSettings TokenizerSettings",
    },
)
