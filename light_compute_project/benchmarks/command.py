"""scripts/benchmark.py: what each verb runs, and what is printed and written afterwards."""

from __future__ import annotations

import importlib
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.options import BenchmarkOptions
from litgpt_core.core.checkout import PROJECT_DIR
from litgpt_core.core.errors import ConfigError

RUN = {
    "train": "benchmarks.training:run_training",
    "to-loss": "benchmarks.to_loss:run_to_loss",
    "generate": "benchmarks.generating:run_generation",
    "serve": "benchmarks.serving:run_serving",
    "ladder": "benchmarks.training:run_ladder",
    "ceiling": "benchmarks.provenance:run_ceiling",
    "loss-memory": "benchmarks.loss_memory:run_loss_memory",
    "growth": "benchmarks.growth:run_growth",
    "gpu": "benchmarks.gpu:run_gpu",
}
"""Verb -> function that returns one record or several."""


def run(options: BenchmarkOptions) -> int:
    """Run the verb, print its tables, write its JSON and chart; 0 when done.

    Raises:
        LightComputeError: A mistake of the user's, or a trial that failed.
    """
    if options.out is not None and options.out.is_dir():  # before the benchmark, not after it
        raise ConfigError(f"--out {options.out} is a folder", needed="a file", fix=f"--out {options.out}/result.json")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the running trial is ended too
    module, _, name = RUN[options.verb].partition(":")
    function: Callable[..., Any] = getattr(importlib.import_module(module), name)
    with tempfile.TemporaryDirectory(prefix="benchmark-", ignore_cleanup_errors=True) as temporary:
        folder = Path(temporary)
        if options.keep is not None:
            folder = options.keep.resolve()
            if folder.exists() and any(folder.iterdir()):
                raise ConfigError(f"--keep {options.keep} holds files already", needed="a new or empty folder")
            folder.mkdir(parents=True, exist_ok=True)
        found = function(options, folder=folder)
    records = found if isinstance(found, list) else [found]
    _report(records, [record_path(record, options) for record in records])
    return 0


def record_path(record: dict[str, Any], options: BenchmarkOptions) -> Path | None:
    """Where a record goes: --out (for ladder with the rung in its name), or metrics/; a ceiling only to --out."""
    subject = record.get("work", {}).get("name")
    if options.out is not None:
        return options.out.with_stem(f"{options.out.stem}-{subject[4:]}") if options.verb == "ladder" else options.out
    if options.verb == "ceiling":
        return None
    name = subject.replace("_", "-") if options.verb == "ladder" else "-".join(filter(None, (options.verb, subject)))
    return PROJECT_DIR / "metrics" / f"benchmark-{name}.json"


def _report(records: Sequence[dict[str, Any]], paths: Sequence[Path | None]) -> None:
    from rich.console import Console

    from benchmarks.charts import draw
    from benchmarks.record import write_record
    from benchmarks.tables import tables

    console = Console()
    for record, path in zip(records, paths, strict=True):
        for table in tables(record):
            console.print(table)
        if path is not None:
            write_record(record, path)
            draw(record, path.with_suffix(".png"))
            console.print(f"written: {path}", soft_wrap=True, highlight=False)
