"""Which reader the settings of a corpus describe."""

from __future__ import annotations

from litgpt_core.data.settings import StreamSettings, TextSettings
from litgpt_core.data.stream.columns import ArrowReader, ParquetReader
from litgpt_core.data.stream.readers import JsonlReader, Reader, TextReader


def reader_of(data: StreamSettings) -> Reader:
    """The reader that settings describe.

    Raises:
        EnvironmentProblem: Its package is not installed.
    """
    if isinstance(data, TextSettings):
        if data.text_key:
            return JsonlReader(text_key=data.text_key)
        return TextReader(
            encodings=tuple(data.encodings), decode_errors=data.decode_errors, separator=data.document_separator
        )
    if data.kind == "jsonl":
        return JsonlReader(text_key=data.text_key)
    return (ParquetReader if data.kind == "parquet" else ArrowReader)(text_key=data.text_key)
