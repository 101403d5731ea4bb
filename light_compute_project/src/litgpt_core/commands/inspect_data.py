"""What is in a corpus, a file of conversations or a prepared folder: `lcp data inspect PATH`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from litgpt_core.core.command_line import CommandParser


def main(arguments: Sequence[str]) -> int:
    """Print documents or conversations, lengths, scripts, duplicates and a sample."""
    parser = CommandParser("data inspect", description="What is in a corpus or a prepared folder; needs no torch.")
    parser.add_argument("path", help="a prepared folder, a file, a folder or an address")
    parser.add_argument(
        "--text_key", default="", help="key or column of the text in JSONL, Parquet or Arrow rows (text)"
    )
    parser.add_argument("--glob", default="", help="which files of a folder")
    parser.add_argument("--max_mb", type=float, default=200.0, help="look at about so much text at most (200)")
    options = parser.parse_args(arguments)
    from litgpt_core.data.stream.inspect_corpus import corpus_settings, inspect_corpus, inspect_prepared

    if (Path(options.path).expanduser() / "meta.json").is_file():
        from litgpt_core.data.prepare import open_prepared

        lines = inspect_prepared(open_prepared(Path(options.path).expanduser()))
    else:
        from litgpt_core.data.inspect_chats import inspect_chats

        chats = {} if options.text_key else inspect_chats(options.path)
        settings = corpus_settings(options.path, text_key=options.text_key, pattern=options.glob)
        lines = chats or inspect_corpus(settings, max_bytes=int(options.max_mb * 1e6)).lines()
    sys.stdout.writelines(f"{name:<17}{value}\n" for name, value in lines.items())
    return 0
