"""One evaluation of several checkpoints: what is measured, the measuring, the comparisons, the files."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from litgpt_core.checkpoint import locate
from litgpt_core.core.errors import ConfigError
from litgpt_core.data.document import Document
from litgpt_core.evaluate.compare import (
    Difference,
    compare_suites,
    compare_texts,
)
from litgpt_core.evaluate.core_metric import core_metric, read_bundle
from litgpt_core.evaluate.gpt_scorer import GPTScorer
from litgpt_core.evaluate.harness import run_tasks
from litgpt_core.evaluate.items import Item
from litgpt_core.evaluate.record import Measurements, measure, weights_sha256
from litgpt_core.evaluate.report import save_record, write_html
from litgpt_core.evaluate.run_data import RunData, data_of, run_folder_of
from litgpt_core.evaluate.suite_score import SuiteScore
from litgpt_core.evaluate.suites.catalogue import BYTES, build, chosen
from litgpt_core.evaluate.suites.material import Material
from litgpt_core.evaluate.text_files import read_documents

logger = logging.getLogger(__name__)


def evaluate(
    checkpoints: Sequence[str], *, options: argparse.Namespace, command: str
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Measure checkpoints, compare the first with each other one, and write results.

    Args:
        checkpoints: Names of runs, run folders or checkpoint directories; none: the best candidate.
        options: As `command.build_parser` parses them.
        command: For the record.

    Returns:
        One record for each checkpoint, and the differences.

    Raises:
        LightComputeError: A checkpoint, text or option is not what was expected.
    """
    directories = [locate(name) for name in checkpoints or [""]]
    bundle = read_bundle(options.core) if options.core else []
    texts = read_documents(options.text)
    data = _shared([_data(directory, options.data) for directory in directories])
    scorers = [
        GPTScorer.from_directory(directory, name=name, device=options.device, precision=options.precision)
        for directory, name in zip(directories, labels(directories), strict=True)
    ]
    what = measurements(scorers[0], data[0], options=options, texts=texts)
    records = []
    for scorer, own, directory in zip(scorers, data, directories, strict=True):
        record = measure(scorer, own, what=what)
        if options.harness:
            tasks = options.harness.split(",")
            record["harness"] = run_tasks(scorer, tasks, folder=options.task_dir, limit=options.examples)
        if bundle:
            record["core"] = core_metric(scorer, bundle, limit=options.examples)
        record |= {"checkpoint": directory.as_posix(), "weights_sha256": weights_sha256(directory), "command": command}
        record |= {"recorded_at": datetime.now(UTC).isoformat(timespec="seconds")}
        path = save_record(
            options.results or _results(directory), record, step=_step(directory), suffix="-text" if texts else ""
        )
        logger.info("%s", path)
        records.append(record)
    differences = [each.plain() for other in records[1:] for each in compare(records[0], other)]
    if options.out is not None:
        write_html(options.out, records, differences=differences)
        logger.info("%s", options.out)
    return records, differences


def compare(a: dict[str, Any], b: dict[str, Any]) -> list[Difference]:
    """First minus second on everything that both records hold, by two measures for each suite."""
    names = (str(a["name"]), str(b["name"]))
    found: list[Difference | None] = []
    if "bytes" in a and "bytes" in b:
        found.append(compare_texts(a["bytes"]["texts"], b["bytes"]["texts"], names=names))
    for suite in a["suites"]:
        if suite in b["suites"]:
            scores = [SuiteScore.from_plain(suite, record["suites"][suite]) for record in (a, b)]
            found += [compare_suites(*scores, names=names, measure=each) for each in ("accuracy", "choice_bits")]
    return [each for each in found if each is not None]


def measurements(
    scorer: GPTScorer, data: RunData | None, *, options: argparse.Namespace, texts: Sequence[Document]
) -> Measurements:
    """What is measured on every checkpoint; held-out text is that of the first one's run.

    Raises:
        ConfigError: Nothing is left to measure.
    """
    held_out = data.documents if data is not None else []
    others = (options.harness or options.core) and options.suite is None and not texts
    names = [] if others else chosen(options.suite, has_texts=bool(texts))
    material = Material(
        documents=held_out or texts,
    )
    suites: dict[str, list[Item]] = {}
    for name in names:
        if name != BYTES:
            items = build(name, material, seed=options.seed)
            if items:
                suites[name] = items
            else:
                logger.warning("%s: left out, because this data gives no items for it", name)
    documents = (texts or held_out) if BYTES in names else []
    if not documents and not suites and not others:
        raise ConfigError(
            f"there is nothing to measure {scorer.name} on: its training data is not here, and no text was given",
            needed="a text",
            fix="--text FILE, or --data FOLDER",
        )
    return Measurements(
        documents=documents,
        suites=suites,
        of_a_kind=options.limit or None,
        context=options.context,
        seed=options.seed,
    )


def labels(directories: Sequence[Path]) -> list[str]:
    """A short name for each: the run's, with the step where it is a step, or where two would be the same."""
    found = []
    for directory in directories:
        run, step = run_folder_of(directory), _step(directory)
        name = directory.name if run is None else run.path.resolve().name
        found.append(name if run is None or step == "final" else f"{name} {step.removeprefix('step-').lstrip('0')}")
    repeated = {name for name in found if found.count(name) > 1}
    return [
        directory.as_posix() if name in repeated else name for name, directory in zip(found, directories, strict=True)
    ]


def _data(directory: Path, given: Path | None) -> RunData | None:
    return data_of(directory) if given is None else RunData.open(given)


def _shared(found: Sequence[RunData | None]) -> list[RunData | None]:
    """One object for each prepared folder: its n-gram models are fitted once for all checkpoints of a run."""
    first: dict[Path, RunData] = {}
    return [None if each is None else first.setdefault(each.prepared.directory, each) for each in found]


def _results(directory: Path) -> Path:
    run = run_folder_of(directory)
    return Path("evaluation") / directory.name if run is None else run.path / "evaluation"


def _step(directory: Path) -> str:
    return directory.resolve().name
