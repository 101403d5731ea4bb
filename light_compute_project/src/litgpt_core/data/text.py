"""Your own text as a corpus: one file, or the matching files of a folder. Plain text only."""

from __future__ import annotations

import codecs
import difflib
import logging
from collections import Counter
from pathlib import Path

from litgpt_core.core.errors import DataError
from litgpt_core.data.document import Corpus, Document, make_corpus, source_facts
from litgpt_core.data.settings import TextSettings

logger = logging.getLogger(__name__)

_WIDE_MARKS = (  # longest first: the UTF-16 mark is the beginning of the UTF-32 one
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_SHOWN = 10


def read_text(data: TextSettings) -> Corpus:
    """Read a file, or the matching files of a folder (hidden ones are skipped, empty ones left out with a log line).

    Raises:
        DataError: The path is missing or unreadable, nothing matches, a file is binary or in no listed encoding, or
            there is no text at all. A missing path lists what exists instead.
    """
    path = Path(data.path).expanduser()
    if path.is_dir():
        files, root = matching_files(path, data.glob), path
    elif path.exists():
        files, root = [path], path.parent
    else:
        raise missing_path(path)
    documents, encodings, empty = [], Counter[str](), []
    for file in files:
        raw = _read_bytes(file)
        if not raw.strip():
            empty.append(file.relative_to(root).as_posix())
            continue
        text, encoding = decode_text(raw, encodings=data.encodings, path=file)
        encodings[encoding] += 1
        documents.append(Document(data.name, file.relative_to(root).as_posix(), text))
    if not documents:
        raise DataError(
            f"{path} holds no text: every file is empty", needed="some text", fix="data.path=FILE_OR_FOLDER"
        )
    if empty:
        logger.info("data: %d empty file(s) left out (first: %s)", len(empty), empty[0])
    used = dict(sorted(encodings.items()))
    logger.info("data: decoded %s", ", ".join(f"{count:,} file(s) as {name}" for name, count in used.items()))
    return make_corpus(documents, [source_facts(data.name, documents, encodings=used)])


def decode_text(raw: bytes, *, encodings: list[str], path: Path) -> tuple[str, str]:
    """(text, encoding used): the first of `encodings` that decodes all bytes. Byte-order marks are dropped, newlines
    kept.

    Raises:
        DataError: The bytes look binary (zero bytes outside UTF-16 and UTF-32), or no encoding fits.
    """
    marked = next((name for mark, name in _WIDE_MARKS if raw.startswith(mark)), "")
    binary = not marked and b"\0" in raw
    tried = []
    for given in encodings:
        name = codecs.lookup(given).name
        wide = name.startswith(("utf-16", "utf-32"))
        if (name in ("utf-16", "utf-32") and name != marked) or ((marked or binary) and not wide):
            continue  # guesses without their mark; with a mark, or zero bytes, only wide encodings make sense
        codec = "utf-8-sig" if name == "utf-8" else name
        tried.append(name)
        try:
            text = raw.decode(codec)
        except UnicodeDecodeError:
            continue
        return text, name
    if binary:
        raise DataError(
            f"{path} is not text: it holds zero bytes (the first at {raw.index(0):,})",
            needed="plain text files",
            fix="narrow data.glob, convert the file, or for UTF-16 without a mark: data.encodings=[utf-16-le]",
        )
    raise DataError(
        f"{path} cannot be decoded as {', '.join(tried) or 'any of data.encodings'}"
        + (f"; its byte-order mark is that of {marked}" if marked else ""),
        needed=f"one of data.encodings={encodings} to fit",
        fix=f"data.encodings=[{marked or 'utf-8,latin-1'}]",
    )


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(
            f"cannot read {path}: {error.strerror}",
            needed="a file this user may read",
            fix="check its permissions, or data.path=OTHER",
        ) from error


def matching_files(folder: Path, pattern: str) -> list[Path]:
    """Files of a folder by a glob pattern, sorted, no hidden ones; DataError lists what is there if none match."""
    try:
        found = [path for path in folder.glob(pattern) if not _hidden(path, folder) and path.is_file()]
        if found:
            return sorted(found, key=lambda path: path.relative_to(folder).as_posix())
        others = (path for path in folder.rglob("*") if not _hidden(path, folder) and path.is_file())
        there = Counter(path.suffix or "(none)" for path in others)
    except (ValueError, NotImplementedError) as error:  # an absolute or malformed pattern
        raise DataError(
            f"data.glob={pattern!r} is not a usable pattern: {error}", fix="data.glob='**/*.txt'"
        ) from error
    except OSError as error:
        raise DataError(f"cannot list {folder}: {error.strerror}", needed="a folder this user may read") from error
    kinds = ", ".join(f"{count} x {suffix}" for suffix, count in there.most_common(_SHOWN)) or "nothing"
    best = there.most_common(1)[0][0] if there else ".txt"
    raise DataError(
        f"no file in {folder} matches data.glob={pattern!r}; there is: {kinds}",
        needed="at least one matching file",
        fix=f"data.glob='**/*{'' if best == '(none)' else best}'",
    )


def _hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def missing_path(path: Path) -> DataError:
    """The error for a path that does not exist, listing what its folder contains."""
    parent = path.absolute().parent
    while not parent.is_dir():
        parent = parent.parent
    try:
        names = sorted(entry.name + ("/" if entry.is_dir() else "") for entry in parent.iterdir())
    except OSError:
        names = []
    near = difflib.get_close_matches(path.name, names, n=_SHOWN, cutoff=0.5)
    shown = (near + [name for name in names if name not in near])[:_SHOWN]
    there = ", ".join(shown) + (f", and {len(names) - len(shown)} more" if len(names) > len(shown) else "")
    return DataError(
        f"{path} does not exist; in {parent} there is: {there or 'nothing'}",
        needed="an existing file or folder (relative paths start in the current folder)",
        fix=f"data.path={parent / near[0]}" if near else "data.path=FILE_OR_FOLDER",
    )
