"""Reads the texts that are scored: files, folders of them, or the held-out split of a run."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from litgpt_core.core.errors import DataError
from litgpt_core.core.text import nearest
from litgpt_core.data.document import Document

logger = logging.getLogger(__name__)


def read_documents(paths: Sequence[Path]) -> list[Document]:
    """One document for each file; of a folder every file below it that is UTF-8 and not empty.

    Raises:
        DataError: A path does not exist, a named file is empty or not UTF-8, or a folder holds no text.
    """
    documents: list[Document] = []
    for path in map(Path, paths):
        if path.is_dir():
            documents += _folder(path)
        else:
            documents.append(Document(str(path.parent), path.name, read_text(path)))
    return documents


def read_text(path: Path) -> str:
    """The text of one file, its line ends as they are.

    Raises:
        DataError: The file is missing, unreadable, empty, or not UTF-8.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        near = ""
        if isinstance(error, FileNotFoundError) and path.parent.is_dir():
            near = nearest(path.name, [entry.name for entry in path.parent.iterdir()])
        raise DataError(
            f"{path} cannot be read: {error.strerror}{near}", needed="a text file in UTF-8", fix="check the path"
        ) from error
    if not raw:
        raise DataError(f"{path} is empty", needed="a text of at least one byte", fix="another file")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not UTF-8 (byte {error.start:,})",
            needed="a text file in UTF-8",
            fix="convert it, for example by iconv",
        ) from error


def _folder(path: Path) -> list[Document]:
    documents, left_out = [], 0
    for file in sorted(entry for entry in path.rglob("*") if entry.is_file()):
        try:
            text = file.read_bytes().decode("utf-8")
        except (UnicodeDecodeError, OSError):
            left_out += 1
            continue
        if text:
            documents.append(Document(str(path), file.relative_to(path).as_posix(), text))
    if left_out:
        logger.warning("%s: left out %d files that are not UTF-8", path, left_out)
    if not documents:
        raise DataError(f"{path} holds no text file", needed="files in UTF-8 that are not empty", fix="another folder")
    return documents
