"""What `train`, `generate` and `to-loss` have in common: provenance, the machine's ceiling, the trials, the record."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.options import BenchmarkOptions
from benchmarks.processes import child_environment
from benchmarks.provenance import measure_ceiling, provenance
from benchmarks.record import comparison_record
from benchmarks.runner import RunSpec, Trial, run_rounds


def run_comparison(
    kind: str,
    specs: Sequence[RunSpec],
    *,
    options: BenchmarkOptions,
    work: dict[str, Any],
    folder: Path,
    fresh_caches: bool = False,
) -> tuple[dict[str, Any], list[Trial]]:
    """Run all trials; the JSON of `record.comparison_record`, and the trials.

    Args:
        kind: train, generate or to-loss.
        specs: The programs.
        options: The command line.
        work: What every program does, with `threads` and perhaps `device`.
        folder: An empty folder that the caller removes.
        fresh_caches: See `runner.run_rounds`.

    Raises:
        EnvironmentProblem: A trial failed.
    """
    peers = [spec.label for spec in specs if not spec.ours]
    origin = provenance(options.command, peers=peers, nanogpt_dir=options.nanogpt_dir)
    ceiling = measure_ceiling(folder, device=work.get("device", "cpu"), threads=work["threads"])
    trials = run_rounds(
        specs,
        rounds=options.rounds,
        folder=folder,
        environment=child_environment(work["threads"]),
        timeout_s=options.trial_timeout,
        fresh_caches=fresh_caches,
    )
    record = comparison_record(kind, specs=specs, trials=trials, work=work, ceiling=ceiling, provenance=origin)
    return record, trials
