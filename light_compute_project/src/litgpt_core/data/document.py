"""One text with a name, and a corpus of them with its identity. Reading is in `sources`, splitting in `split`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Document:
    """One text; its newlines are exactly those of the file."""

    source: str
    """Where it comes from: a package, a file, a folder."""

    name: str
    """Its name within the source, with forward slashes, the same on every machine."""

    text: str
    """The decoded text."""


@dataclass(frozen=True, kw_only=True)
class SourceFacts:
    """What was read from one source, for meta.json."""

    name: str
    version: str = ""
    files: int
    bytes: int
    """UTF-8 bytes of the text."""
    sha256: str
    """`documents_sha256` of this source's documents."""
    encodings: dict[str, int] = field(default_factory=dict)
    """Encoding -> number of files it decoded, where that was a choice."""


@dataclass(frozen=True)
class Corpus:
    """All documents, sorted by (source, name), with facts about each source."""

    documents: tuple[Document, ...]
    sources: tuple[SourceFacts, ...]
    sha256: str


def documents_sha256(documents: Iterable[Document]) -> str:
    """SHA-256 (hex) over source, name, length and UTF-8 bytes of each document, whatever order they come in."""
    digest = hashlib.sha256()
    for document in sorted(documents, key=lambda d: (d.source, d.name)):
        raw = document.text.encode("utf-8")
        digest.update(f"{document.source}\0{document.name}\0{len(raw)}\n".encode())
        digest.update(raw)
    return digest.hexdigest()


def utf8_bytes(documents: Iterable[Document]) -> int:
    """UTF-8 bytes of all texts together."""
    return sum(len(document.text.encode("utf-8")) for document in documents)


def make_corpus(documents: Sequence[Document], sources: Sequence[SourceFacts]) -> Corpus:
    """A corpus with its documents in canonical order."""
    ordered = tuple(sorted(documents, key=lambda d: (d.source, d.name)))
    return Corpus(documents=ordered, sources=tuple(sources), sha256=documents_sha256(ordered))


def source_facts(
    name: str, documents: Sequence[Document], *, version: str = "", encodings: dict[str, int] | None = None
) -> SourceFacts:
    """Counts and hash of one source's documents."""
    return SourceFacts(
        name=name,
        version=version,
        files=len(documents),
        bytes=utf8_bytes(documents),
        sha256=documents_sha256(documents),
        encodings=dict(encodings or {}),
    )
