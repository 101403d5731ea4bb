"""A corpus from a Python function that a config names: `data=custom data.reader=MODULE.FUNCTION`.

def read_markdown(folder: str) -> Iterator[tuple[str, str]]:
    for path in sorted(Path(folder).rglob("*.md")):
        yield path.relative_to(folder).as_posix(), path.read_text(encoding="utf-8")
"""

from __future__ import annotations

from litgpt_core.core.errors import DataError
from litgpt_core.data.document import Corpus, Document, make_corpus, source_facts
from litgpt_core.data.settings import CustomTextSettings


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
