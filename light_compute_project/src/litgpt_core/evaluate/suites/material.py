"""What suites are made of: held-out documents, their syntax trees, their words."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from litgpt_core.data.document import Document
from litgpt_core.data.split import cut_chunks
from litgpt_core.evaluate.suites.word_pool import WordPool

LARGEST_PYTHON = 80_000
"""Characters: parsing larger files would take longer than scoring the items."""


@dataclass(frozen=True, kw_only=True)
class Material:
    """Input of every suite."""

    documents: Sequence[Document] = ()
    """Held-out text."""

    @cached_property
    def python(self) -> list[tuple[Document, ast.Module]]:
        """The documents that are Python with at least one function."""
        found = []
        for document in self.documents:
            if "def " in document.text and len(document.text) <= LARGEST_PYTHON and (tree := parsed(document.text)):
                found.append((document, tree))
        return found

    @cached_property
    def divided(self) -> list[Document]:
        """The documents by name; few long ones, as of a text that was cut at its end, as chunks of them."""
        documents = sorted(self.documents, key=lambda document: document.name)
        return documents if len(documents) >= 10 else [chunk for one in documents for chunk in cut_chunks(one)]

    @cached_property
    def words(self) -> WordPool:
        """Words of all documents."""
        return WordPool(self.divided)


def parsed(text: str) -> ast.Module | None:
    """The syntax tree, or None for what is no Python of this version."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
