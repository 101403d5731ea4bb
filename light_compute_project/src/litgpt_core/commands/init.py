"""Make a folder to start from: an experiment of your own, a small text to try it on, and a page of commands.

lcp init my_project

The experiment lies in my_project/configs, which is searched before the configs of the package.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from litgpt_core.config.starter import write_starter
from litgpt_core.core.command_line import CommandParser


def main(arguments: Sequence[str]) -> int:
    """Parse, write, list what was written."""
    parser = CommandParser("init", description=__doc__)
    parser.add_argument("folder", type=Path, help="the folder to make; one that exists must be empty")
    parser.add_argument("--text", type=Path, metavar="FILE_OR_FOLDER", help="your text, instead of a small made-up one")
    given = parser.parse_args(arguments)
    for path in write_starter(given.folder, text=given.text):
        print(path.as_posix())
    print(f"next: cd {given.folder.as_posix()}, then the commands of its README.md")
    return 0
