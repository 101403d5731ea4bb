"""Train a tokenizer on text files and save it in the form that this project and LitGPT load.

    lcp tokenizer --kind bpe --out my_tokenizer texts/ more.txt

Folders are searched for *.txt, *.md and *.py unless --glob says otherwise. Exit code 2 and one message on a mistake.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from litgpt_core.core.command_line import CommandParser
from litgpt_core.tokenizers.settings import KINDS


def main(arguments: Sequence[str]) -> int:
    """Train, save and print a table."""
    given = _parser().parse_args(arguments)
    from litgpt_core.tokenizers.report import DEFAULT_PATTERNS, find_text_files, settings_for, train_and_report

    settings = settings_for(
        given.kind, vocab_size=given.vocab_size, max_train_bytes=given.max_train_bytes, seed=given.seed
    )
    files = find_text_files(given.inputs, patterns=given.glob or DEFAULT_PATTERNS)
    print(train_and_report(settings, files, directory=given.out, force=given.force))
    return 0


def _parser() -> CommandParser:
    parser = CommandParser("tokenizer", description=__doc__)
    parser.add_argument(
        "inputs", nargs="+", type=Path, metavar="FILE_OR_FOLDER", help="UTF-8 text files, or folders of them"
    )
    parser.add_argument("--kind", choices=KINDS, default="bpe", help="which tokenizer (default: bpe)")
    parser.add_argument(
        "--vocab_size", type=int, default=4096, help="ids, specials included; not for char and byte (default: 4096)"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to save into")
    parser.add_argument("--force", action="store_true", help="replace a tokenizer that this command made at --out")
    parser.add_argument(
        "--glob",
        nargs="+",
        action="extend",
        metavar="PATTERN",
        help="which files of a folder (default: *.txt *.md *.py)",
    )
    parser.add_argument(
        "--max_train_bytes", type=int, help="train on a sample of this size (default: 20000000, unigram 4000000)"
    )
    parser.add_argument("--seed", type=int, default=1337, help="of that sample (default: 1337)")
    return parser
