"""`lcp evaluate`: measures and compares checkpoints, compresses files. The library is `litgpt_core.evaluate`."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from litgpt_core.core.command_line import CommandParser, command_for_record
from litgpt_core.core.errors import ConfigError
from litgpt_core.core.text import count

logger = logging.getLogger(__name__)

DESCRIPTION = """Measure what checkpoints have learnt, without any download.

  lcp evaluate runs/baseline                              bits per byte of held-out text, and the suites of items
  lcp evaluate runs/a runs/b --out report.html            paired: differences with intervals, "indistinguishable" said
  lcp evaluate runs/a --suite bytes --text FILE FOLDER    bits per byte of any text
  lcp evaluate runs/a --harness TASK --task_dir FOLDER    a task of lm-eval with this model, unconverted
  lcp evaluate runs/a --core FOLDER                       the CORE metric on a bundle that is here
  lcp evaluate runs/a --compress FILE                     compress a file with the model: FILE.lcp
  lcp evaluate runs/a --decompress FILE.lcp               and restore it, byte for byte

Results go to runs/NAME/evaluation/: STEP.json with every item, evaluation.md, evaluation.png.
"""


def build_parser() -> CommandParser:
    """The options."""
    parser = CommandParser("evaluate", description=DESCRIPTION)
    add = parser.add_argument
    add("checkpoints", nargs="*", metavar="MODEL", help="run names or checkpoint directories (the most recent model)")
    add(
        "--suite",
        metavar="A,B",
        help="all, bytes, python_pairs, english_pairs, induction, cloze (bytes,python_pairs,english_pairs)",
    )
    add(
        "--text",
        nargs="+",
        action="extend",
        type=Path,
        default=[],
        metavar="FILE",
        help="texts for bits per byte, instead of held-out ones",
    )
    add("--data", type=Path, metavar="FOLDER", help="prepared data, where a checkpoint's run does not lead to it")
    add("--limit", type=int, default=150, metavar="N", help="most items of each kind; 0: all (150)")
    add("--context", type=int, metavar="N", help="least tokens of context in later windows (half the window)")
    add("--seed", type=int, default=1, help="of the items (1)")
    add("--out", type=Path, metavar="FILE.html", help="one page with tables, picture and comparisons")
    add("--results", type=Path, metavar="FOLDER", help="where results go (evaluation/ in the run folder)")
    add("--wandb", action="store_true", help="also as a run on W&B, in the group of the run that was measured")
    add("--harness", metavar="A,B", help="tasks of lm-eval, which must be installed")
    add("--task_dir", type=Path, metavar="FOLDER", help="YAML files of tasks for --harness; then none of the package's")
    add("--core", type=Path, metavar="FOLDER", help="nanochat's bundle of the CORE metric, already downloaded")
    add("--examples", type=int, metavar="N", help="most examples of each task of --harness and --core (all)")
    add("--compress", type=Path, metavar="FILE", help="compress FILE into FILE.lcp")
    add("--decompress", type=Path, metavar="FILE.lcp", help="restore what --compress wrote")
    add("--to", type=Path, metavar="FILE", help="file to write, of --compress and --decompress")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    add("--precision", default="32", help="32, bf16, 16, or auto: as stored (32)")
    return parser


def main(argv: Sequence[str]) -> int:
    """Parse, measure, print a table and comparisons, write results; 0.

    Raises:
        LightComputeError: A checkpoint, file or option is not what was expected.
    """
    a = build_parser().parse_intermixed_args(list(argv))
    if a.compress or a.decompress:
        _code(a)
        return 0
    _check(a)
    from litgpt_core.evaluate.session import evaluate

    records, differences = evaluate(a.checkpoints, options=a, command=command_for_record("evaluate", argv))
    _print(records, differences, a)
    if a.wandb:
        from litgpt_core.evaluate.dashboard import log_to_wandb

        sys.stdout.write(f"W&B took {log_to_wandb(records)} of {count(len(records), 'evaluation')}\n")
    return 0


def _check(a: argparse.Namespace) -> None:
    from litgpt_core.evaluate.suites.catalogue import BYTES, chosen

    if a.text and BYTES not in chosen(a.suite, has_texts=True):
        raise ConfigError("--text without the suite bytes", needed="--suite bytes", fix=f"--suite bytes,{a.suite}")
    if a.limit < 0:
        raise ConfigError(f"--limit {a.limit}", needed="0 for all items, or a number of items", fix="--limit 150")
    if a.examples is not None and a.examples < 1:
        raise ConfigError(f"--examples {a.examples}", needed="a number of examples from 1 on", fix="--examples 100")
    if a.out is not None and a.out.suffix not in (".html", ".htm"):
        raise ConfigError(
            f"--out {a.out}", needed="a name that ends in .html", fix=f"--out {a.out.with_suffix('.html')}"
        )


def _print(records: list[dict[str, Any]], differences: list[dict[str, Any]], a: argparse.Namespace) -> None:
    from rich.console import Console

    from litgpt_core.evaluate.table import cautions, rich_table, score_rows, text_rows

    console = Console()
    drawn = [rich_table(score_rows(records))]
    if a.text and len(a.text) + len(records[0].get("bytes", {}).get("texts", [])) > 2:
        drawn.append(rich_table(text_rows(records)))
    for table in drawn:
        console.width = max(console.width, console.measure(table, options=console.options.update(width=2000)).maximum)
        console.print(table)
    for line in [*(each["sentence"] for each in differences), *cautions(records)]:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _code(a: argparse.Namespace) -> None:
    """`--compress` and `--decompress`."""
    from litgpt_core.core.files import write_atomically

    given = a.compress or a.decompress
    if len(a.checkpoints) > 1 or (a.compress and a.decompress):
        raise ConfigError("one file is coded with one model", needed="one checkpoint, --compress or --decompress")
    try:
        raw = given.read_bytes()
    except OSError as error:
        from litgpt_core.core.errors import DataError

        raise DataError(f"{given} cannot be read: {error.strerror}", needed="a file", fix="check the path") from error
    target = a.to or (given.with_name(f"{given.name}.lcp") if a.compress else _restored(given))
    if target.exists():
        raise ConfigError(f"{target} exists", needed="a new name", fix=f"--to {target}.new")
    from litgpt_core.checkpoint import locate
    from litgpt_core.evaluate.coding import HEADER_BYTES, compress, decompress
    from litgpt_core.evaluate.compressors import compressor_bits
    from litgpt_core.evaluate.gpt_scorer import GPTScorer

    directory = locate(a.checkpoints[0] if a.checkpoints else None)
    scorer = GPTScorer.from_directory(directory, device=a.device, precision=a.precision)
    if a.decompress:
        text = decompress(scorer, raw, name=str(given), progress=_progress)
        write_atomically(target, text)
        sys.stdout.write(f"{target}: {len(text):,} bytes restored, hash as before\n")
        return
    from litgpt_core.data.document import Document

    done = compress(scorer, raw, name=str(given), progress=_progress)
    write_atomically(target, done.data)
    others = compressor_bits([Document("", given.name, raw.decode("utf-8"))])
    sys.stdout.write(
        f"{target}: {len(done.data):,} of {done.n_bytes:,} bytes, {done.bits_per_byte:.4f} bits per byte and a header "
        f"of {HEADER_BYTES} bytes ({', '.join(f'{name} {bits:.4f}' for name, bits in others.items())})\n"
    )


def _restored(path: Path) -> Path:
    return path.with_suffix("") if path.suffix == ".lcp" else path.with_name(f"{path.name}.restored")


def _progress(done: int, total: int) -> None:
    if sys.stderr.isatty() and (done % 200 == 0 or done == total):
        sys.stderr.write(f"\r{done:,} of {total:,} tokens" + ("\n" if done == total else ""))
        sys.stderr.flush()
