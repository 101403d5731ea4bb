"""The JSON of a benchmark: medians, spreads and ratios, with every raw number and its provenance.

Pure arithmetic on trials; nothing is measured here. In the JSON, programs are called `contestants` and trials `laps`:
the keys of format 1, which the committed files in metrics/ have.
"""

from __future__ import annotations

import shlex
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.runner import RunSpec, Trial
from litgpt_core.core.checkout import PROJECT_DIR
from litgpt_core.core.files import write_json

BYTES = {"fp32": 4.0, "bf16": 2.0, "fp16": 2.0, "f16": 2.0, "q8_0": 34 / 32, "int8": 34 / 32, "q4_0": 18 / 32}
"""Bytes of one weight; integers add a scale of two bytes to every 32. Ours of 4 bits have a head of 8."""

FORMAT = 1
"""Raise this when a key of the JSON changes its meaning."""


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, lowest and highest."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def round_ratios(values: Mapping[tuple[str, int], float], one: str, other: str) -> dict[str, Any]:
    """One program's value over another's, within each round and then summarised.

    The trials of a round are close in time, so a slow period of the machine affects both.

    Args:
        values: (label, round) -> value.
        one: Label of the numerator.
        other: Label of the denominator.
    """
    rounds = [value / values[other, index] for (label, index), value in sorted(values.items()) if label == one]
    return {**spread(rounds), "rounds": rounds}


def program_record(
    spec: RunSpec, trials: Sequence[Trial], *, work: dict[str, Any], ceiling: dict[str, Any]
) -> dict[str, Any]:
    """One program's part of the JSON.

    Args:
        spec: The program.
        trials: All trials of the benchmark.
        work: `flops_per_token` by the model's cost count, and where weights are read again for every token
            `weights_read_per_token`.
        ceiling: `gflops` and perhaps `data_sheet_gflops` (number type -> GFLOP/s of the matrix product), and
            `read_gb_per_s`.
    """
    own = [trial for trial in trials if trial.label == spec.label]
    measured = [trial.measurement for trial in own]
    rate, precision = spread([one.tokens_per_s for one in measured]), measured[0].precision
    flops, weights = work.get("flops_per_token"), work.get("weights_read_per_token")
    gflops = rate["median"] * flops / 1e9 if flops else None
    product, sheet = ((ceiling.get(key) or {}).get(precision) for key in ("gflops", "data_sheet_gflops"))
    passes = rate["median"] / measured[0].numbers.get("batch", 1.0)  # forward passes per second when decoding
    read = passes * weights * BYTES[precision] / 1e9 if weights and precision in BYTES else None
    walls = [trial.process.wall_s for trial in own]
    names = sorted({name for one in measured for name in one.numbers})
    return {
        "label": spec.label,
        "ours": spec.ours,
        "describes": spec.describes,
        "precision": precision,
        "tokens_per_s": rate,
        "gflops": gflops,
        "weight_gb_per_s": read,
        "read_share": read / ceiling["read_gb_per_s"] if read and ceiling.get("read_gb_per_s") else None,
        "ceiling_share": gflops / product if gflops and product else None,
        "mfu": gflops / sheet if gflops and sheet else None,
        "wall_s": {"first": walls[0], "later_median": statistics.median(walls[1:]) if walls[1:] else None},
        "peak_mb": spread([trial.process.peak_mb for trial in own]),
        "tree_mb": spread([trial.process.tree_mb for trial in own]),
        "numbers": {name: spread([one.numbers[name] for one in measured if name in one.numbers]) for name in names},
        "laps": [_trial_record(trial) for trial in own],
    }


def _trial_record(trial: Trial) -> dict[str, Any]:
    measured = trial.measurement
    return {
        "round": trial.round,
        "tokens_per_s": measured.tokens_per_s,
        "wall_s": trial.process.wall_s,
        "peak_mb": trial.process.peak_mb,
        "tree_mb": trial.process.tree_mb,
        "numbers": measured.numbers,
        "raw_s": measured.raw,
        **({"curve": measured.curve} if measured.curve else {}),
        "command": portable(trial.command),
    }


def comparison_record(
    kind: str,
    *,
    specs: Sequence[RunSpec],
    trials: Sequence[Trial],
    work: dict[str, Any],
    ceiling: dict[str, Any] | None,
    provenance: dict[str, Any],
) -> dict[str, Any]:
    """The whole JSON of a benchmark that compares programs.

    `ratios[ours][peer]` says how many times the peer's tokens/s ours reached.

    Args:
        kind: train, generate or to-loss.
        specs: The programs, in the order in which they were named.
        trials: In the order in which they were run.
        work: What every program did; see `program_record`.
        ceiling: The result of `children.ceiling.measure`, with the machine's description.
        provenance: Command, date, git state, versions of the peers.
    """
    found = ceiling or {}
    rates = {(trial.label, trial.round): trial.measurement.tokens_per_s for trial in trials}
    labels = [spec.label for spec in specs]
    return {
        "format": FORMAT,
        "kind": kind,
        **provenance,
        "work": work,
        "ceiling_gflops": found.get("gflops"),
        "ceiling_by_size": found.get("by_size"),
        "read_gb_per_s": found.get("read_gb_per_s"),
        "data_sheet_gflops": found.get("data_sheet_gflops"),
        "environment": found.get("environment"),
        "order": [[trial.round, trial.label] for trial in trials],
        "contestants": [program_record(spec, trials, work=work, ceiling=found) for spec in specs],
        "ratios": {
            spec.label: {other: round_ratios(rates, spec.label, other) for other in labels if other != spec.label}
            for spec in specs
            if spec.ours
        },
    }


def write_record(record: dict[str, Any], path: Path) -> None:
    """Write the JSON atomically, its command without paths of this machine."""
    if command := record.get("command"):
        record = {**record, "command": shlex.join(portable(shlex.split(command)))}
    write_json(path, record, indent=1)


def portable(words: Sequence[str]) -> list[str]:
    """A command without paths of this machine: in this project relative to its root, elsewhere the last part alone."""
    return [_portable(word) for word in words]


def _portable(word: str) -> str:
    name, equals, value = word.rpartition("=")
    path = Path(value)
    if not path.is_absolute():
        return word
    if value == sys.executable:
        return "python"
    root = PROJECT_DIR.parent
    return name + equals + (path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name)
