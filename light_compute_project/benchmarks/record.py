"""What a race leaves: medians, spreads and ratios, with every raw number and where it came from, as one JSON.

Pure arithmetic on laps; nothing is measured here.
"""

from __future__ import annotations

import json
import shlex
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.race import Contestant, Lap
from litgpt_core.core.machine import PROJECT_DIR

BYTES = {"fp32": 4.0, "bf16": 2.0, "fp16": 2.0, "f16": 2.0, "q8_0": 34 / 32}
"""Bytes of one weight; llama.cpp's q8_0 adds a scale of two bytes to every 32."""

FORMAT = 1
"""Raise this when a key of the JSON changes its meaning."""


def portable(words: Sequence[str]) -> list[str]:
    """A command without the places of this machine: paths of this project from its root, others by their last part."""
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


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, lowest and highest."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def contestant_record(
    contestant: Contestant, laps: Sequence[Lap], *, work: dict[str, Any], ceiling: dict[str, Any]
) -> dict[str, Any]:
    """One contestant's part of the JSON.

    Args:
        contestant: Who.
        laps: All laps of the race.
        work: `flops_per_token` by the model's own cost count, and where weights are read anew for every token
            `weights_read_per_token`.
        ceiling: `gflops` and perhaps `data_sheet_gflops` (number type -> GFLOP/s of the matrix product), and
            `read_gb_per_s`.
    """
    own = [lap for lap in laps if lap.label == contestant.label]
    rate = spread([lap.reading.tokens_per_s for lap in own])
    precision = own[0].reading.precision
    flops, weights = work.get("flops_per_token"), work.get("weights_read_per_token")
    gflops = rate["median"] * flops / 1e9 if flops else None
    measured, sheet = ((ceiling.get(key) or {}).get(precision) for key in ("gflops", "data_sheet_gflops"))
    side_by_side = own[0].reading.numbers.get("batch", 1.0)
    read = rate["median"] / side_by_side * weights * BYTES[precision] / 1e9 if weights and precision in BYTES else None
    walls = [lap.finished.wall_s for lap in own]
    names = sorted({name for lap in own for name in lap.reading.numbers})
    return {
        "label": contestant.label,
        "ours": contestant.ours,
        "describes": contestant.describes,
        "precision": precision,
        "tokens_per_s": rate,
        "gflops": gflops,
        "weight_gb_per_s": read,
        "read_share": read / ceiling["read_gb_per_s"] if read and ceiling.get("read_gb_per_s") else None,
        "ceiling_share": gflops / measured if gflops and measured else None,
        "mfu": gflops / sheet if gflops and sheet else None,
        "wall_s": {"first": walls[0], "later_median": statistics.median(walls[1:]) if walls[1:] else None},
        "peak_mb": spread([lap.finished.peak_mb for lap in own]),
        "tree_mb": spread([lap.finished.tree_mb for lap in own]),
        "numbers": {
            name: spread([n for lap in own if (n := lap.reading.numbers.get(name)) is not None]) for name in names
        },
        "laps": [
            {
                "round": lap.round,
                "tokens_per_s": lap.reading.tokens_per_s,
                "wall_s": lap.finished.wall_s,
                "peak_mb": lap.finished.peak_mb,
                "tree_mb": lap.finished.tree_mb,
                "numbers": lap.reading.numbers,
                "raw_s": lap.reading.raw,
                **({"curve": lap.reading.curve} if lap.reading.curve else {}),
                "command": portable(lap.command),
            }
            for lap in own
        ],
    }


def ratios(contestants: Sequence[Contestant], laps: Sequence[Lap]) -> dict[str, dict[str, dict[str, Any]]]:
    """`ratios[ours][peer]`: how many times the peer's tokens/s ours reached, formed within each round, then summarised.

    A round's laps lie next to each other in time, so a slow stretch of the machine hits both.
    """
    rates = {(lap.label, lap.round): lap.reading.tokens_per_s for lap in laps}
    rounds = sorted({lap.round for lap in laps})
    result: dict[str, dict[str, dict[str, Any]]] = {}
    for one in contestants:
        if not one.ours:
            continue
        result[one.label] = {}
        for other in contestants:
            if other.label != one.label:
                values = [rates[one.label, index] / rates[other.label, index] for index in rounds]
                result[one.label][other.label] = {**spread(values), "rounds": values}
    return result


def race_record(
    kind: str,
    *,
    contestants: Sequence[Contestant],
    laps: Sequence[Lap],
    work: dict[str, Any],
    ceiling: dict[str, Any] | None,
    provenance: dict[str, Any],
) -> dict[str, Any]:
    """The whole JSON of a race.

    Args:
        kind: train, generate or to-loss.
        contestants: In the order in which they were named.
        laps: In the order in which they were run.
        work: What everybody had to do; `flops_per_token` is read from it.
        ceiling: What `child_gemm.measure` returned, with the machine's description.
        provenance: Command, time, git, versions of the peers.
    """
    found = ceiling or {}
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
        "order": [[lap.round, lap.label] for lap in laps],
        "contestants": [contestant_record(contestant, laps, work=work, ceiling=found) for contestant in contestants],
        "ratios": ratios(contestants, laps),
    }


def write_record(record: dict[str, Any], path: Path) -> None:
    """Write the JSON whole or not at all, its command without the places of this machine."""
    if typed := record.get("command"):
        record = {**record, "command": shlex.join(portable(shlex.split(typed)))}
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    temporary.replace(path)
