"""What `lcp compress` does and prints: one compression or several, then the report."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from litgpt_core import tokenizers
from litgpt_core.checkpoint.choice import locate
from litgpt_core.checkpoint.verification import weights_file
from litgpt_core.compression.apply import compress, default_target
from litgpt_core.compression.recipe import CompressionRecipe
from litgpt_core.compression.report import CompressionReport, check_required, make_report
from litgpt_core.compression.report_chart import draw
from litgpt_core.compression.texts import (
    Domain,
    calibration_windows,
    check_disjoint,
    find_domains,
    measurement_windows,
    window_length,
)
from litgpt_core.core.environment import machine_facts
from litgpt_core.core.files import write_json
from litgpt_core.model.config import GPTConfig

REPORT, CHART = "compression.json", "compression.png"


def run(a: argparse.Namespace, recipes: Sequence[CompressionRecipe], *, command: str) -> Iterator[str]:
    """Compress by every recipe and report; lines to print.

    Args:
        a: The parsed options of `lcp compress`.
        recipes: Checked.
        command: The command line, for the record.
    """
    source = locate(a.model)
    targets = {recipe.name: a.out or default_target(source, recipe.name) for recipe in recipes}
    needs_text = a.report or any(recipe.needs_text for recipe in recipes)
    domains = find_domains(source, tokenizers.load(source), given=a.domain) if needs_text else []
    calibration = _checked_calibration(a, source, recipes, domains) if a.report else None
    for recipe in recipes:
        made = compress(
            source,
            recipe,
            targets[recipe.name],
            domains=domains,
            calibration_tokens=a.calibration_tokens,
            with_dequantized=a.with_dequantized,
            force=a.force,
        )
        before, after = weights_file(source).stat().st_size, weights_file(made.directory).stat().st_size
        sizes = f"{after / 1e6:.1f} MB instead of {before / 1e6:.1f} MB"
        yield f"{made.directory}: {recipe.name}, {sizes}, {made.seconds:.0f} s"
        yield from made.record["notes"]
    if a.report:
        yield from _report(a, source, targets, calibration, domains, command)


def _checked_calibration(
    a: argparse.Namespace, source: Path, recipes: Sequence[CompressionRecipe], domains: Sequence[Domain]
) -> Tensor | None:
    """What will be calibrated with, None for nothing. A report that its text forbids is refused before the work."""
    length = window_length(GPTConfig.from_checkpoint(source).block_size)
    measured = [measurement_windows(domain, tokens=a.tokens, length=length) for domain in domains]
    if not any(recipe.needs_text for recipe in recipes):
        return None
    calibration = calibration_windows(domains, tokens=a.calibration_tokens, length=length)
    check_disjoint(calibration, measured)
    return calibration


def _report(
    a: argparse.Namespace,
    source: Path,
    targets: dict[str, Path],
    calibration: Tensor | None,
    domains: Sequence[Domain],
    command: str,
) -> Iterator[str]:
    report = make_report(
        source,
        targets,
        domains=domains,
        tokens=a.tokens,
        rounds=a.rounds,
        calibration=calibration,
        kv_cache=a.kv_cache,
    )
    yield report.table()
    yield from write_report(report, list(targets.values()), command=command)
    check_required(report, a.require)


def write_report(report: CompressionReport, directories: Sequence[Path], *, command: str) -> Iterator[str]:
    """Write JSON and chart of a report: into the one directory it is about, or beside several; names the files."""
    if len(directories) == 1:
        record, chart = directories[0] / REPORT, directories[0] / CHART
    else:
        parent = directories[0].parent
        record, chart = parent / f"comparison-{REPORT}", parent / f"comparison-{CHART}"
    facts: dict[str, Any] = {"command": command, **report.plain(), "machine": machine_facts(device="cpu")}
    write_json(record, facts)
    draw(report, chart)
    yield f"{record}, {chart.name}"
