"""Verify LitGPT's files, sync its source tree, or show what a newer version would change.

    lcp sync --verify                  # offline
    lcp sync --ref v0.5.13 --dry_run   # log, paths, names we use
    lcp sync --ref v0.5.13             # one merge commit
    lcp sync --undo

Exit code 0 for success, 1 if a file or a name differs, 2 with one message if the operation is not possible;
then nothing was changed. See docs/upstream.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from litgpt_core.core.checkout import PROJECT_DIR
from litgpt_core.core.command_line import CommandParser
from litgpt_core.upstream import commands
from litgpt_core.upstream.remote import UPSTREAM_URL

ROOT = PROJECT_DIR.parent


def main(arguments: Sequence[str]) -> int:
    """Parse, execute one command, print its result."""
    given = _parser().parse_args(arguments)
    answer = _answer(given)
    print(answer.text)
    return answer.exit_code


def _answer(given: argparse.Namespace) -> commands.CommandResult:
    if given.ref:
        act = commands.answer_dry_run if given.dry_run else commands.answer_sync
        return act(ROOT, given.ref, url=given.url, with_ci=given.with_ci)
    if given.record:
        return commands.record_manifest(ROOT, given.record, url=given.url)
    if given.status:
        return commands.answer_status(ROOT, url=given.url)
    if given.undo:
        return commands.answer_undo(ROOT)
    if given.names:
        return commands.answer_names(ROOT)
    return commands.record_names(ROOT) if given.record_names else commands.answer_verify(ROOT)


def _parser() -> CommandParser:
    parser = CommandParser("sync", description=__doc__)
    one = parser.add_mutually_exclusive_group(required=True)
    one.add_argument("--verify", action="store_true", help="compare the wheel and the synced tree with the tag")
    one.add_argument("--status", action="store_true", help="pin, installed, synced, verified, newer tags")
    one.add_argument("--ref", metavar="TAG", help="sync this tag or branch of upstream")
    one.add_argument("--undo", action="store_true", help="undo the sync if it is HEAD")
    one.add_argument("--names", action="store_true", help="compare the installed litgpt with the names we use")
    one.add_argument("--record_names", action="store_true", help="write the snapshot that --names compares with")
    one.add_argument("--record", metavar="TAG", help="write the manifest of a tag, before changing the pin to it")
    parser.add_argument("--dry_run", action="store_true", help="with --ref: show what would change, changing nothing")
    parser.add_argument("--with_ci", action="store_true", help="with --ref: also .github/ and .lightning/")
    parser.add_argument("--url", default=UPSTREAM_URL, help=f"upstream's repository ({UPSTREAM_URL})")
    return parser
