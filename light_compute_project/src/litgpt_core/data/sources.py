"""From settings to a corpus of text. The readers are `python_source`, `shakespeare`, `text` and `custom`.

A new text source needs a function that yields (name, text) for each document, and a YAML file in `configs/data/` of
`kind: custom` that names it. A source with settings of its own needs a settings class and a row in `READERS`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from litgpt_core.data.custom import read_custom
from litgpt_core.data.document import Corpus, utf8_bytes
from litgpt_core.data.python_source import read_python_source
from litgpt_core.data.settings import (
    CorpusSettings,
    CustomTextSettings,
    PythonSourceSettings,
    TextSettings,
    TinyShakespeareSettings,
)
from litgpt_core.data.shakespeare import read_tiny_shakespeare
from litgpt_core.data.text import read_text

logger = logging.getLogger(__name__)

READERS: dict[type, Callable[[Any], Corpus]] = {
    PythonSourceSettings: read_python_source,
    TinyShakespeareSettings: read_tiny_shakespeare,
    TextSettings: read_text,
    CustomTextSettings: read_custom,
}
"""Settings class -> the function that reads its corpus."""


def read_corpus(data: CorpusSettings) -> Corpus:
    """Read every document of a source.

    Raises:
        DataError: Something is missing, unreadable, of another version, or holds no text.
    """
    start = time.perf_counter()
    corpus = READERS[type(data)](data)
    logger.info(
        "data %s: read %s documents, %.3g MB, in %.1f s",
        data.name,
        f"{len(corpus.documents):,}",
        utf8_bytes(corpus.documents) / 1e6,
        time.perf_counter() - start,
    )
    return corpus
