"""From settings to a corpus of text. The readers are `python_source`, `shakespeare`, `text` and `read_custom`.

A new text source needs a function that yields (name, text) for each document, and a YAML file in `configs/data/` of
`kind: custom` that names it:

    def read_markdown(folder: str) -> Iterator[tuple[str, str]]:
        for path in sorted(Path(folder).rglob("*.md")):
            yield path.relative_to(folder).as_posix(), path.read_text(encoding="utf-8")

A source with settings of its own needs a settings class and a row in `READERS`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from litgpt_core.core.errors import DataError
from litgpt_core.data.document import Corpus, Document, make_corpus, source_facts, utf8_bytes
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


def read_custom(data: CustomTextSettings) -> Corpus:
    """One document per (name, text) that the function yields; what the function raises passes through.

    Raises:
        DataError: It yields something else, a name twice, or no text at all.
    """
    texts: dict[str, str] = {}
    for item in data.function(**data.kwargs):
        if not (isinstance(item, tuple) and len(item) == 2 and all(isinstance(part, str) for part in item)):
            raise _wrong(data, f"yields {item!r:.100}", needed="pairs of strings: (name, text)")
        name, text = item
        if name in texts:
            raise _wrong(data, f"yields {name!r} twice", needed="a different name for each document")
        texts[name] = text
    documents = [Document(data.name, name, text) for name, text in texts.items() if text]
    if not documents:
        raise _wrong(data, "yields no text", needed="at least one document that is not empty")
    return make_corpus(documents, [source_facts(data.name, documents)])


def _wrong(data: CustomTextSettings, given: str, *, needed: str) -> DataError:
    return DataError(f"data.reader={data.reader} {given}", needed=needed, fix="see data=custom in docs/data.md")


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
