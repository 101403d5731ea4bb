"""Your own text as a corpus: one file, or the matching files of a folder. Plain text only, compressed or not."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path

from litgpt_core.core.errors import DataError
from litgpt_core.data.document import Corpus, Document, make_corpus, source_facts
from litgpt_core.data.encoding import Decoded, decode_text
from litgpt_core.data.files import SHOWN, document_name, kind_of, matching_files, missing_path, read_file, shown
from litgpt_core.data.json_texts import name_rows, no_rows, row_texts
from litgpt_core.data.settings import TextSettings

logger = logging.getLogger(__name__)

_SEPARATORS = ("<|endoftext|>", "<|end_of_text|>", "<|end|>", "</s>")
"""Texts that published corpora put between documents."""


def read_text(data: TextSettings) -> Corpus:
    """Read a file, or the matching files of a folder (hidden ones are skipped, empty ones left out with a log line).

    Raises:
        DataError: The path is missing or unreadable, nothing matches, a file is binary, damaged or in no listed
            encoding, or there is no text at all. A missing path lists what exists instead.
    """
    path = Path(data.path).expanduser()
    kind = kind_of(path)
    if kind == "missing":
        raise missing_path(path)
    files, root = (matching_files(path, data.glob), path) if kind == "folder" else ([path], path.parent)
    decoded, empty = _decode_files(files, data)
    if not decoded:
        raise DataError(
            f"{shown(path)} holds no text: every file is empty", needed="some text", fix="data.path=FILE_OR_FOLDER"
        )
    if empty:
        logger.info("data: %d empty file(s) left out (first: %s)", len(empty), document_name(empty[0], root))
    documents = [
        document
        for file, found in decoded.items()
        for document in _documents(data, document_name(file, root), found.text)
    ]
    if not documents and data.text_key:
        raise no_rows(shown(path), data.text_key, {shown(file): found.text for file, found in decoded.items()})
    if not documents:
        raise DataError(
            f"{shown(path)} holds no text between its separators {data.document_separator!r}",
            needed="documents that are not empty",
            fix="data.document_separator=''",
        )
    encodings = dict(sorted(Counter(found.encoding for found in decoded.values()).items()))
    logger.info("data: decoded %s", ", ".join(f"{count:,} file(s) as {name}" for name, count in encodings.items()))
    _warn_of_doubts(decoded)
    if not data.document_separator and not data.text_key:
        _name_separators(documents)
        name_rows({shown(file): found.text for file, found in decoded.items()})
    return make_corpus(documents, [source_facts(data.name, documents, encodings=encodings)])


def _decode_files(files: list[Path], data: TextSettings) -> tuple[dict[Path, Decoded], list[Path]]:
    """(text by file, empty files). Every file is looked at before the first problem is raised with their number."""
    decoded: dict[Path, Decoded] = {}
    empty, problems = [], list[DataError]()
    for file in files:
        raw = read_file(file)
        if not raw.strip():
            empty.append(file)
            continue
        try:
            found = decode_text(raw, encodings=data.encodings, name=shown(file), errors=data.decode_errors)
        except DataError as problem:
            problems.append(problem)
            continue
        if found.text.strip():
            decoded[file] = found
        else:
            empty.append(file)
    if problems:
        first = problems[0]
        more = f" ({len(problems) - 1:,} of {len(files):,} files have such problems too)" if problems[1:] else ""
        raise DataError(first.given + more, needed=first.needed, fix=first.fix)
    return decoded, empty


def _documents(data: TextSettings, name: str, text: str) -> list[Document]:
    """The file as one document, or as those between its separators, or one for each of its rows."""
    if data.text_key:
        return [Document(data.name, row, found) for row, found in row_texts(text, key=data.text_key, name=name)]
    if not data.document_separator or data.document_separator not in text:
        return [Document(data.name, name, text)] if text.strip() else []
    parts = (part.strip("\r\n") for part in text.split(data.document_separator))
    return [Document(data.name, f"{name}#{i:08d}", part) for i, part in enumerate(parts) if part.strip()]


def _warn_of_doubts(decoded: dict[Path, Decoded]) -> None:
    replaced = {file: found.replaced for file, found in decoded.items() if found.replaced}
    if replaced:
        logger.warning(
            "data: %s damaged place(s) in %s file(s) replaced by U+FFFD: %s",
            f"{sum(replaced.values()):,}",
            f"{len(replaced):,}",
            ", ".join(f"{shown(file)} ({count:,})" for file, count in list(replaced.items())[:SHOWN]),
        )
    doubtful = Counter((found.encoding, found.doubt) for found in decoded.values() if found.doubt)
    for (encoding, doubt), count in sorted(doubtful.items()):
        file, found = next((f, d) for f, d in decoded.items() if (d.encoding, d.doubt) == (encoding, doubt))
        logger.warning(
            "data: %s read as %s, although %s%s; it reads %r. If that is wrong, set data.encodings",
            shown(file),
            encoding,
            doubt,
            f" (and {count - 1:,} more files)" if count > 1 else "",
            _around_first_special(found.text),
        )


def _around_first_special(text: str) -> str:
    at = next((index for index, character in enumerate(text) if character > "\x7f"), 0)
    return text[max(0, at - 20) : at + 20]


def _name_separators(documents: list[Document]) -> None:
    """Say that a separator of documents, which some corpora hold, is text unless it is named."""
    for separator in _SEPARATORS:
        count = sum(document.text.count(separator) for document in documents)
        if count:
            logger.warning(
                "data: %s in the text %s time(s): it stays ordinary text. If it separates documents, set "
                "data.document_separator='%s'",
                separator,
                f"{count:,}",
                separator,
            )
