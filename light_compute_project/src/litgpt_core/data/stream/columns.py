"""Parquet and Arrow files: the texts of one column, a few rows at a time. Needs pyarrow, the extra `data`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from litgpt_core.core.errors import DataError
from litgpt_core.core.packages import optional
from litgpt_core.data.stream.chunks import Chunk, Range
from litgpt_core.data.stream.readers import Reader, ReadReport
from litgpt_core.data.stream.remote import is_address

_ROWS = 256


@dataclass(frozen=True, kw_only=True)
class ParquetReader(Reader):
    """Parquet: a range of bytes holds the row groups that begin in it; other columns are not read."""

    text_key: str

    def divisible(self, name: str) -> bool:
        """Row groups are found by the file's footer."""
        return True

    def read_range(self, part: Range, report: ReadReport) -> Iterator[str]:
        """See the base class."""
        parquet, pa = optional("pyarrow.parquet"), optional("pyarrow")
        with contextlib.ExitStack() as stack:
            source = stack.enter_context(part.file.open()) if is_address(part.file.address) else part.file.address
            with _damage_named(part.file.name, "Parquet", pa):
                file = stack.enter_context(parquet.ParquetFile(source, buffer_size=1 << 20, pre_buffer=False))
                _check_column(file.schema_arrow, self.text_key, part.file.name, pa)
                groups = [i for i in range(file.num_row_groups) if part.begin <= _offset(file.metadata, i) < part.end]
            if not groups:
                return
            batches = file.iter_batches(batch_size=_ROWS, row_groups=groups, columns=[self.text_key], use_threads=False)
            place = f"{part.file.name}, row group {groups[0]} and later"
            yield from _texts(batches, part.file.name, place, "Parquet", pa, report)

    def text_per_byte(self, chunk: Chunk) -> float:
        """See the base class; the footer says it."""
        file = chunk.ranges[0].file
        with file.open() as opened, _damage_named(file.name, "Parquet", pa := optional("pyarrow")):
            found = optional("pyarrow.parquet").ParquetFile(opened)
            _check_column(found.schema_arrow, self.text_key, file.name, pa)
            groups = (found.metadata.row_group(i) for i in range(found.num_row_groups))
            columns = (group.column(i) for group in groups for i in range(group.num_columns))
            size = sum(each.total_uncompressed_size for each in columns if each.path_in_schema == self.text_key)
        return float(size) / file.bytes


@dataclass(frozen=True, kw_only=True)
class ArrowReader(Reader):
    """Arrow IPC, the stream that `datasets` writes (`save_to_disk`, its cache) or the file format."""

    text_key: str

    def divisible(self, name: str) -> bool:
        """A stream has no index."""
        return False

    def read_range(self, part: Range, report: ReadReport) -> Iterator[str]:
        """See the base class."""
        pa = optional("pyarrow")
        ipc = optional("pyarrow.ipc")
        with part.file.open() as file, _damage_named(part.file.name, "Arrow", pa):
            is_file = file.read(6) == b"ARROW1"
            file.seek(0)
            opened = ipc.open_file(file) if is_file else ipc.open_stream(file)
            _check_column(opened.schema, self.text_key, part.file.name, pa)
            batches = (opened.get_batch(i) for i in range(opened.num_record_batches)) if is_file else iter(opened)
            columns = (batch.select([self.text_key]) for batch in batches)
            small = (batch.slice(at, _ROWS) for batch in columns for at in range(0, batch.num_rows, _ROWS))
            yield from _texts(small, part.file.name, part.file.name, "Arrow", pa, report)


def _texts(batches: Iterator[Any], name: str, place: str, kind: str, pa: Any, report: ReadReport) -> Iterator[str]:
    number = 0
    while True:
        with _damage_named(name, kind, pa):
            batch = next(batches, None)
        if batch is None:
            return
        for text in batch.column(0).to_pylist():
            number += 1
            if text is None:
                report.skip(f"{place}, row {number}", "no text")
            elif text.strip():
                yield text


def _check_column(schema: Any, key: str, name: str, pa: Any) -> None:
    def is_text(kind: Any) -> bool:
        if pa.types.is_dictionary(kind):
            kind = kind.value_type
        return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))

    texts = [field.name for field in schema if is_text(field.type)]
    if key not in texts:
        there = f"; its text columns: {', '.join(texts)}" if texts else "; it has no text column"
        raise DataError(
            f"{name} has no text column {key!r}{there}",
            needed="the same text column in every file",
            fix=f"data.text_key={texts[0]}" if texts else "other files: data.glob=PATTERN",
        )


def _offset(metadata: Any, group: int) -> int:
    """Where a row group begins in the file."""
    column = metadata.row_group(group).column(0)
    places = (column.dictionary_page_offset, column.data_page_offset)
    return min(int(place) for place in places if place is not None)


@contextlib.contextmanager
def _damage_named(name: str, kind: str, pa: Any) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{name} cannot be read as {kind}: {str(error).splitlines()[0] if str(error) else type(error).__name__}",
            needed="an intact file of that format",
            fix="copy or download it again, or data.glob=PATTERN that leaves it out",
        ) from error
