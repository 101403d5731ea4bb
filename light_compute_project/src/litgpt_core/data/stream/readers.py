"""Readers: chunks of a corpus, and the documents of one chunk, in constant memory.

    text      .txt: a file is a document; a long one is sections of about 1 MB; or what stands between separators
    jsonl     a line is a row; .gz, .bz2, .xz, .zst
    parquet   the row groups that begin in a range of bytes      (`columns`)
    arrow     IPC streams and files, as Hugging Face `datasets` keeps them on disk      (`columns`)

A row that cannot be used costs itself: it is counted, and the first one is named. Not here: listing files (`inputs`).
"""

from __future__ import annotations

import codecs
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

from litgpt_core.core.errors import DataError
from litgpt_core.core.parsing import ParsingError, parse_json
from litgpt_core.data.encoding import decode_text
from litgpt_core.data.setting_checks import DecodeErrors
from litgpt_core.data.stream.chunks import Chunk, Range, automatic_chunk_bytes, cut_chunks
from litgpt_core.data.stream.inputs import InputFile
from litgpt_core.data.stream.records import LONGEST, lines, record_start, section_start, sections, separated
from litgpt_core.data.unpacking import compression_of, is_compressed_name, unpacked

WHOLE_FILE = 1 << 24
"""Bytes of text up to which a file is one document, and its encoding is recognised; longer ones are UTF-8."""

_LOOKED_AT = 1 << 22
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass
class ReadReport:
    """What a reader noticed."""

    skipped: int = 0
    """Rows that could not be used."""
    first_skipped: str = ""
    """Where the first of them is, and why."""
    replaced: int = 0
    """Damaged places that U+FFFD stands for."""
    encodings: dict[str, int] = field(default_factory=dict)
    """Encoding -> files, where that was a choice."""
    doubts: list[str] = field(default_factory=list)
    """Files whose encoding may be another; the first few."""

    def skip(self, place: str, reason: str) -> None:
        """Count a row that is left out."""
        self.skipped += 1
        self.first_skipped = self.first_skipped or f"{place} ({reason})"


class Reader(ABC):
    """What the files of a corpus are. Small, so that it travels to worker processes."""

    def chunks(self, files: list[InputFile], *, chunk_bytes: int = 0) -> list[Chunk]:
        """The corpus cut by names and sizes; 0: automatic chunks."""
        size = chunk_bytes or automatic_chunk_bytes(files)
        return cut_chunks(files, chunk_bytes=size, divisible=self.divisible)

    def read(self, chunk: Chunk, report: ReadReport) -> Iterator[str]:
        """The documents of a chunk, none of them blank, in the order of the corpus.

        Raises:
            DataError: A file cannot be read or is damaged.
        """
        for part in chunk.ranges:
            yield from self.read_range(part, report)

    def text_per_byte(self, chunk: Chunk) -> float:
        """Bytes of text per byte of the chunk's first file, about, from the beginning of it."""
        with chunk.ranges[0].file.open() as file:
            raw = unpacked(file, name=chunk.label).read(_LOOKED_AT)
            return self.text_bytes(raw) / max(file.tell() if is_compressed_name(chunk.label) else len(raw), 1)

    def text_bytes(self, raw: bytes) -> int:
        """Bytes of text in the beginning of a file, unpacked."""
        return len(raw)

    @abstractmethod
    def divisible(self, name: str) -> bool:
        """Whether a file of this name can be entered in the middle."""

    @abstractmethod
    def read_range(self, part: Range, report: ReadReport) -> Iterator[str]:
        """The documents that begin in a range of a file."""


@dataclass(frozen=True, kw_only=True)
class JsonlReader(Reader):
    """One JSON object per line."""

    text_key: str

    def divisible(self, name: str) -> bool:
        """Lines can be found anywhere, but not in compressed data."""
        return not is_compressed_name(name)

    def read_range(self, part: Range, report: ReadReport) -> Iterator[str]:
        """See the base class."""
        with part.file.open() as file:
            begin, length = _entered(file, part, b"\n")
            stream = file if begin else _from_the_start(file, part)
            for number, line in enumerate(lines(stream, length=length), start=1):
                place = f"{part.file.name}, line {number}" + (f" after byte {begin:,}" if begin else "")
                if line is None:
                    report.skip(place, f"it has more than {LONGEST:,} bytes")
                    continue
                if number == 1 and not begin:
                    line = line.removeprefix(codecs.BOM_UTF8)
                    _refuse_array(line, part.file.name)
                if line.strip():
                    text = self._text(line, place, report)
                    if text:
                        yield text

    def text_bytes(self, raw: bytes) -> int:
        """See the base class."""
        rows = raw.split(b"\n")
        return sum(len(self._text(row, "", ReadReport()).encode("utf-8")) for row in rows[: max(1, len(rows) - 1)])

    def _text(self, line: bytes, place: str, report: ReadReport) -> str:
        try:
            row = parse_json(line, max_bytes=LONGEST)
        except ParsingError as problem:
            report.skip(place, f"not JSON: {problem}")
            return ""
        text = row.get(self.text_key) if isinstance(row, dict) else None
        if not isinstance(text, str):
            keys = [key for key, value in row.items() if isinstance(value, str)] if isinstance(row, dict) else []
            report.skip(place, f"no text under {self.text_key!r}" + (f"; it has {', '.join(keys[:8])}" if keys else ""))
            return ""
        if not text.isascii() and _SURROGATE.search(text):
            report.skip(place, "it holds a lone surrogate, which is no character")
            return ""
        return text if text.strip() else ""


@dataclass(frozen=True, kw_only=True)
class TextReader(Reader):
    """Plain text."""

    encodings: tuple[str, ...] = ("utf-8",)
    decode_errors: DecodeErrors = "strict"
    separator: str = ""

    def divisible(self, name: str) -> bool:
        """Not compressed data, and not where a separator could begin inside itself."""
        own_end = any(self.separator.endswith(self.separator[:n]) for n in range(1, len(self.separator)))
        return not is_compressed_name(name) and not own_end

    def read_range(self, part: Range, report: ReadReport) -> Iterator[str]:
        """See the base class."""
        with part.file.open() as file:
            if part.entire:
                stream = _from_the_start(file, part)
                raw = stream.read(WHOLE_FILE + 1)
                if len(raw) <= WHOLE_FILE:
                    yield from self._short(raw, part.file.name, report)
                    return
                file.seek(0)
            if self.separator:
                begin, length = _entered(file, part, self.separator.encode(self._codec))
                stream = file if begin else _from_the_start(file, part)
                found = separated(stream, self.separator.encode(self._codec), length=length)
            else:
                begin, end = (section_start(file, at) if at < part.file.bytes else at for at in (part.begin, part.end))
                file.seek(begin)
                stream = file if begin else _from_the_start(file, part)
                found = iter(sections(stream, length=None if part.entire else end - begin))
            yield from self._long(found, begin, part.file.name, report)

    @property
    def _codec(self) -> str:
        return self.encodings[0] if len(self.encodings) == 1 else "utf-8"

    def _short(self, raw: bytes, name: str, report: ReadReport) -> Iterator[str]:
        if not raw.strip():
            return
        found = decode_text(raw, encodings=list(self.encodings), name=name, errors=self.decode_errors)
        report.replaced += found.replaced
        report.encodings[found.encoding] = report.encodings.get(found.encoding, 0) + 1
        if found.doubt and len(report.doubts) < 3:
            report.doubts.append(f"{name} read as {found.encoding}, although {found.doubt}")
        texts = found.text.split(self.separator) if self.separator else [found.text]
        for text in texts:
            text = text.strip("\r\n") if len(texts) > 1 else text
            if text.strip():
                yield text

    def _long(self, found: Iterator[bytes | None], offset: int, name: str, report: ReadReport) -> Iterator[str]:
        """The texts of a file that is not read at once; its bytes are UTF-8, or the sole encoding that is listed."""
        report.encodings[self._codec] = report.encodings.get(self._codec, 0) + (1 if not offset else 0)
        for raw in found:
            if raw is None:
                report.skip(f"{name} after byte {offset:,}", f"a document of more than {LONGEST:,} bytes")
                continue
            text = self._decoded(raw if offset else raw.removeprefix(codecs.BOM_UTF8), offset, name, report)
            offset += len(raw) + len(self.separator)
            text = text.strip("\r\n") if self.separator else text
            if text.strip():
                yield text

    def _decoded(self, raw: bytes, offset: int, name: str, report: ReadReport) -> str:
        try:
            text = raw.decode(self._codec)
        except UnicodeDecodeError as error:
            if self.decode_errors == "strict":
                raise DataError(
                    f"{name} cannot be decoded as {self._codec} at byte offset {offset + error.start:,}",
                    needed="intact text; files of more than 16 MB are read as UTF-8, or as the sole entry of "
                    "data.encodings",
                    fix="data.decode_errors=replace   (damaged bytes become U+FFFD and are counted)",
                ) from error
            text = raw.decode(self._codec, errors="replace")
            report.replaced += max(1, text.count("\ufffd"))
        if "\0" in text:
            if self.decode_errors == "strict":
                raise DataError(
                    f"{name} is not text: it holds a zero byte after byte offset {offset:,}",
                    needed="plain text files",
                    fix="data.decode_errors=replace   (they become U+FFFD)",
                )
            report.replaced += text.count("\0")
            text = text.replace("\0", "\ufffd")
        return text


def _entered(file: BinaryIO, part: Range, delimiter: bytes) -> tuple[int, int | None]:
    """(first byte, number of bytes) of the records that begin in a range; a file that is read to its end has no number.

    The file stands at the first of them.
    """
    if part.entire:
        file.seek(0)
        return 0, None
    begin, end = (record_start(file, at, delimiter=delimiter) for at in (part.begin, part.end))
    file.seek(begin)
    return begin, end - begin


def _from_the_start(file: BinaryIO, part: Range) -> BinaryIO:
    """The content of a file from its beginning, unpacked; a compressed file must not be cut."""
    head = file.read(8)
    file.seek(0)
    kind = compression_of(head)
    if kind and not part.entire:
        raise DataError(
            f"{part.file.name} is compressed by {kind}, but its name does not say so",
            needed="a name that ends with .gz, .bz2, .xz or .zst: such a file is not cut into ranges",
            fix="rename it",
        )
    return unpacked(file, name=part.file.name)


def _refuse_array(line: bytes, name: str) -> None:
    if line.lstrip().startswith(b"["):
        raise DataError(
            f"{name} is one JSON array",
            needed="one JSON object per line",
            fix="convert it (jq -c '.[]' FILE), or data=text data.text_key=KEY, which reads it into memory",
        )
