"""From settings to a corpus: picks the reader. The readers themselves are `python_source`, `shakespeare` and `text`.

A new kind of source is one settings class, one reader that returns a `Corpus`, one line here, and one YAML in
`configs/data/`.
"""

from __future__ import annotations

import logging
import time

from litgpt_core.data.document import Corpus, utf8_bytes
from litgpt_core.data.python_source import read_python_source
from litgpt_core.data.settings import CorpusSettings, PythonSourceSettings, TinyShakespeareSettings
from litgpt_core.data.shakespeare import read_tiny_shakespeare
from litgpt_core.data.text import read_text

logger = logging.getLogger(__name__)


def read_corpus(data: CorpusSettings) -> Corpus:
    """Read every document of a source.

    Raises:
        DataError: Something is missing, unreadable, of another version, or holds no text.
    """
    start = time.perf_counter()
    if isinstance(data, PythonSourceSettings):
        corpus = read_python_source(data)
    elif isinstance(data, TinyShakespeareSettings):
        corpus = read_tiny_shakespeare(data)
    else:
        corpus = read_text(data)
    logger.info(
        "data %s: read %s documents, %.3g MB, in %.1f s",
        data.name,
        f"{len(corpus.documents):,}",
        utf8_bytes(corpus.documents) / 1e6,
        time.perf_counter() - start,
    )
    return corpus
