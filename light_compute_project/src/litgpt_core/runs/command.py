"""`lcp runs list|table|compare|plot|best|rm`: reading run folders in a terminal. The library is `litgpt_core.runs`."""

from __future__ import annotations

import argparse
import csv
import json
import logging
import sys
from collections.abc import Sequence
from typing import Any

from litgpt_core.core.command_line import CommandParser, program_of
from litgpt_core.core.errors import ConfigError

logger = logging.getLogger(__name__)

DESCRIPTION = """Read run folders: list, table, compare, plot, best. Nothing is trained or changed, but by rm --yes.

  list                                        every run of runs/: state, step, losses, time
  table 'lr-*' --sort val_loss --columns name,val_loss,optim.lr,model.n_layer
  compare A B                                 settings that differ, and results side by side
  plot A B 'lr-*' --x tokens --out runs.png   curves; --x steps, tokens, time or flops
  best 'lr-*'                                 the name and folder of the best run
  rm --older_than 30d                         what would be removed; --yes removes it

Runs are named by folder name, pattern or path, and all of a sweep or study by its folder; without names all runs of
--dir are taken, those of sweeps and studies included. Losses of runs with different tokenizers do not compare: plot and
best then take bits per byte. Columns are short names (val_loss, val_bpb, step, tokens, lr, commit, started ...) or
dotted keys of summary.json, config.yaml and environment.json.
"""

VERBS = {
    "list": "Every run: state, step, losses, time.",
    "table": "Chosen columns of runs, sorted.",
    "compare": "Settings in which runs differ, and their results.",
    "diff": "The same as compare.",
    "plot": "Curves of several runs in one file.",
    "best": "Name and folder of the run with the smallest value.",
    "rm": "Remove runs: what would go, and with --yes the removal.",
}


def build_parser(verb: str = "") -> CommandParser:
    """The options of one verb; without a verb, the page of all."""
    parser = CommandParser(
        prog=f"{program_of('runs')} {verb}".strip(),
        description=VERBS.get(verb, DESCRIPTION),
    )
    add = parser.add_argument
    if not verb:
        add("verb", choices=list(VERBS), help="what to do; VERB --help shows its options")
        return parser
    add("runs", nargs="*", metavar="RUN", help="names, patterns or folders (all)")
    add("--dir", default="runs", metavar="FOLDER", help="where runs lie (runs)")
    if verb in ("list", "table"):
        add("--columns", metavar="A,B", help="short names or dotted keys")
        add("--sort", default="", metavar="COLUMN", help="smallest first")
        add("--reverse", action="store_true", help="largest first")
        add("--format", choices=["text", "csv", "json"], default="text", help="of the output (text)")
    if verb == "plot":
        add("--metric", metavar="A,B", help="keys of metrics.jsonl (val_loss; val_bpb if tokenizers differ)")
        add("--x", choices=["steps", "tokens", "time", "flops"], default="steps", help="x axis (steps)")
        add("--out", default="runs.png", metavar="FILE", help="file to write: .png, .svg or .pdf (runs.png)")
        add("--log", action="store_true", help="logarithmic y axis")
    if verb == "best":
        add("--by", metavar="COLUMN", help="what is compared (val_loss; val_bpb if tokenizers differ)")
        add("--largest", action="store_true", help="the largest value is best")
    if verb == "rm":
        add("--older_than", metavar="TIME", help="runs whose last change is so long ago, such as 30d or 12h")
        add("--yes", action="store_true", help="remove them")
    return parser


def main(argv: Sequence[str]) -> int:
    """Carry out one verb; 0.

    Args:
        argv: The verb and what follows it.

    Raises:
        LightComputeError: A run, column or file is not what was expected.
    """
    words = list(argv)
    verb = build_parser().parse_args(words[:1]).verb
    arguments = build_parser(verb).parse_intermixed_args(words[1:])
    {"compare": _compare, "diff": _compare, "plot": _plot, "best": _best, "rm": _rm}.get(verb, _table)(arguments)
    return 0


def _table(arguments: argparse.Namespace) -> None:
    from litgpt_core.runs.folders import resolve
    from litgpt_core.runs.tables import COLUMNS, rows, table

    columns = arguments.columns.split(",") if arguments.columns else COLUMNS
    runs = resolve(arguments.runs, folder=arguments.dir)
    found = rows(runs, columns=columns, sort=arguments.sort, reverse=arguments.reverse)
    if arguments.format == "json":
        sys.stdout.write(json.dumps(found, indent=2, ensure_ascii=False) + "\n")
    elif arguments.format == "csv":
        writer = csv.DictWriter(sys.stdout, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(found)
    else:
        _print(table(found) if found else f"no runs in {arguments.dir}")


def _compare(arguments: argparse.Namespace) -> None:
    from litgpt_core.runs.folders import resolve
    from litgpt_core.runs.tables import comparison

    runs = resolve(arguments.runs, folder=arguments.dir) if arguments.runs else []
    if len(runs) < 2:
        raise ConfigError(
            f"{len(runs)} runs to compare", needed="two or more names", fix="lcp runs compare RUN OTHER_RUN"
        )
    _print(*comparison(runs))


def _plot(arguments: argparse.Namespace) -> None:
    from litgpt_core.runs.folders import comparable_loss, resolve, share_tokenizer
    from litgpt_core.runs.plots import plot

    runs = resolve(arguments.runs, folder=arguments.dir)
    metric = (arguments.metric or comparable_loss(runs)).split(",")
    if {"val_loss", "train_loss"} & set(metric) and not share_tokenizer(runs):
        logger.warning("these runs have different tokenizers: their losses do not compare, --metric val_bpb does")
    path = plot(runs, metric=metric, x=arguments.x, path=arguments.out, log=arguments.log)
    _print(path.as_posix())


def _best(arguments: argparse.Namespace) -> None:
    from litgpt_core.runs.folders import best, comparable_loss, resolve

    runs = resolve(arguments.runs, folder=arguments.dir)
    by = arguments.by or comparable_loss(runs)
    run = best(runs, by=by, largest=arguments.largest)
    _print(f"{run.name}: {by} {run.get(by)}", run.path.as_posix())


def _rm(arguments: argparse.Namespace) -> None:
    from litgpt_core.core.durations import duration_text, seconds_of
    from litgpt_core.core.text import byte_size, count
    from litgpt_core.runs.folders import resolve
    from litgpt_core.runs.removal import removable, remove

    if not arguments.runs and arguments.older_than is None:
        raise ConfigError("nothing says which runs", needed="names, or an age", fix="lcp runs rm --older_than 30d")
    older = 0.0 if arguments.older_than is None else seconds_of(arguments.older_than)
    found = removable(resolve(arguments.runs, folder=arguments.dir), older_than_s=older)
    going = [each for each in found if not each.kept_because]
    for each in found:
        reason = f"stays: {each.kept_because}" if each.kept_because else byte_size(each.size)
        _print(f"  {each.run.path.as_posix()}  last changed {duration_text(each.age_s)} ago, {reason}")
    size = byte_size(sum(each.size for each in going))
    if not arguments.yes:
        _print(
            f"{count(len(going), 'run')}, {size}: nothing is removed without --yes" if going else "nothing to remove"
        )
        return
    _print(f"removed {count(len(remove(found)), 'run')}, {size}")


def _print(*parts: Any) -> None:
    from rich.console import Console

    for part in parts:
        console = Console()
        if not isinstance(part, str):  # a table keeps its width; a narrower terminal wraps its lines
            console.width = max(
                console.width, console.measure(part, options=console.options.update(width=2000)).maximum
            )
        console.print(part, highlight=False, markup=False, soft_wrap=isinstance(part, str))
