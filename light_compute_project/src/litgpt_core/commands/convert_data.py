"""Token shards of a prepared folder in the format of another project: `lcp data convert FOLDER OUT --to FORMAT`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from litgpt_core.core.command_line import CommandParser


def main(arguments: Sequence[str]) -> int:
    """Write both splits and the tokenizer into a new folder."""
    parser = CommandParser("data convert", description="Token shards in the format of another project.")
    parser.add_argument("folder", type=Path, help="a prepared folder of text, as `lcp data` prints it")
    parser.add_argument("out", type=Path, help="a new folder")
    parser.add_argument("--to", required=True, metavar="FORMAT", help="nanogpt, llmc, megatron, olmo or datatrove")
    options = parser.parse_args(arguments)
    from litgpt_core.data.prepare import open_prepared
    from litgpt_core.data.stream.token_writing import write_tokens

    counts = write_tokens(open_prepared(options.folder.expanduser()), options.out.expanduser(), format=options.to)
    out = options.out
    sys.stdout.write(
        f"{out}: {counts['train']:,} train and {counts['val']:,} val tokens, format {options.to}\n"
        f"to train on it: data=tokens data.path={out} tokenizer=pretrained tokenizer.path={out / 'tokenizer'}\n"
    )
    return 0
