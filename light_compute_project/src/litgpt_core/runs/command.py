"""`lcp runs list|table|compare|plot|best`: reading run folders in a terminal. The library is `litgpt_core.runs`."""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Sequence
from typing import Any

from litgpt_core.core.command_line import CommandParser, program_of
from litgpt_core.core.errors import ConfigError

DESCRIPTION = """Read run folders: list, table, compare, plot, best. Nothing is trained or changed.

  list                                        every run of runs/: state, step, losses, time
  table 'lr-*' --sort val_loss --columns name,val_loss,optim.lr,model.n_layer
  compare A B                                 settings that differ, and results side by side
  plot A B --metric val_loss,train_loss --x tokens --out runs.png
  best --by val_loss                          the name and folder of the best run

Runs are named by folder name, pattern or path; without names all runs of --dir are taken, those of sweeps and studies
included. Columns are short names (val_loss, val_bpb, step, tokens, lr, commit, started ...) or dotted keys of
summary.json, config.yaml and environment.json.
"""

VERBS = {
    "list": "Every run: state, step, losses, time.",
    "table": "Chosen columns of runs, sorted.",
    "compare": "Settings in which runs differ, and their results.",
    "diff": "The same as compare.",
    "plot": "Curves of several runs in one file.",
    "best": "Name and folder of the run with the smallest value.",
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
        add("--metric", default="val_loss", metavar="A,B", help="keys of metrics.jsonl (val_loss)")
        add("--x", choices=["steps", "tokens", "time"], default="steps", help="x axis (steps)")
        add("--out", default="runs.png", metavar="FILE", help="file to write: .png, .svg or .pdf (runs.png)")
        add("--log", action="store_true", help="logarithmic y axis")
    if verb == "best":
        add("--by", default="val_loss", metavar="COLUMN", help="what is compared (val_loss)")
        add("--largest", action="store_true", help="the largest value is best")
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
    {"compare": _compare, "diff": _compare, "plot": _plot, "best": _best}.get(verb, _table)(arguments)
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
    from litgpt_core.runs.folders import resolve
    from litgpt_core.runs.plots import plot

    runs = resolve(arguments.runs, folder=arguments.dir)
    path = plot(runs, metric=arguments.metric.split(","), x=arguments.x, path=arguments.out, log=arguments.log)
    _print(path.as_posix())


def _best(arguments: argparse.Namespace) -> None:
    from litgpt_core.runs.folders import best, resolve

    run = best(resolve(arguments.runs, folder=arguments.dir), by=arguments.by, largest=arguments.largest)
    _print(f"{run.name}: {arguments.by} {run.get(arguments.by)}", run.path.as_posix())


def _print(*parts: Any) -> None:
    from rich.console import Console

    for part in parts:
        console = Console()
        if not isinstance(part, str):  # a table keeps its width; a narrower terminal wraps its lines
            console.width = max(
                console.width, console.measure(part, options=console.options.update(width=2000)).maximum
            )
        console.print(part, highlight=False, markup=False, soft_wrap=isinstance(part, str))
