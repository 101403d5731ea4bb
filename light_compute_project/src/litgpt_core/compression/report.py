"""The report of one or several compressions of one source: measured rows, verdicts, JSON with provenance, a chart.

compression.json   every number, what was measured with, the machine, versions
compression.png    file size against bits per byte lost: the Pareto front (`report_chart`)
"""

from __future__ import annotations

import copy
import dataclasses
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from litgpt_core import tokenizers
from litgpt_core.checkpoint import load_model
from litgpt_core.checkpoint.verification import weights_file
from litgpt_core.compression.gridded_source import gridded_note
from litgpt_core.compression.kv_cache import bytes_per_token, rounded_cache
from litgpt_core.compression.quality import DomainQuality, SourceModel, worst_upper
from litgpt_core.compression.speed import Measure, Trials, measure_speed
from litgpt_core.compression.texts import Domain, check_disjoint, measurement_windows, window_length
from litgpt_core.compression.verdict import AXES, Row, saves, verdict
from litgpt_core.core.errors import LightComputeError
from litgpt_core.model.gpt import GPT

logger = logging.getLogger(__name__)


class NotSaved(LightComputeError):
    """A saving that `--require` names was not measured."""

    exit_code = 4


@dataclass(frozen=True, kw_only=True)
class ModelMeasurement:
    """One line of the report."""

    row: Row
    bits_per_weight: float
    """All bytes that the engine reads, times 8, per parameter of the source."""
    quality: Mapping[str, DomainQuality]
    directory: Path
    text: str = ""
    """The verdict."""


@dataclass(frozen=True, kw_only=True)
class CompressionReport:
    """All lines, the source first."""

    lines: Sequence[ModelMeasurement]
    notes: Sequence[str]
    facts: Mapping[str, Any]

    def table(self) -> str:
        """For the terminal."""
        names = list(self.lines[0].quality)
        head = ["", "bits", "file MB", "RAM MB", "tokens/s", *[f"{name}: delta bpb (95 %)" for name in names]]
        rows = [[*head, "KL", "top-1", "verdict"]]
        for line in self.lines:
            rows.append(_cells(line, names, source=line is self.lines[0]))
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]) - 1)]
        text = "\n".join("  ".join([*(c.ljust(w) for c, w in zip(row, widths, strict=False)), row[-1]]) for row in rows)
        return "\n".join([text, *self.notes])

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return {
            **self.facts,
            "notes": list(self.notes),
            "rows": [
                {
                    **dataclasses.asdict(line.row),
                    "bits_per_weight": line.bits_per_weight,
                    "quality": {name: dataclasses.asdict(value) for name, value in line.quality.items()},
                    "directory": str(line.directory),
                    "verdict": line.text,
                }
                for line in self.lines
            ],
        }


def _cells(line: ModelMeasurement, names: list[str], *, source: bool) -> list[str]:
    row = line.row
    speed = _spread(row.tokens_per_s) if row.tokens_per_s else "-"
    memory = f"{sorted(row.peak_mb)[len(row.peak_mb) // 2]:.0f}" if row.peak_mb else "-"
    cells = [row.name, f"{line.bits_per_weight:.1f}", f"{row.file_bytes / 1e6:.1f}", memory, speed]
    for name in names:
        quality = line.quality[name]
        cells.append(f"{quality.bits_per_byte:.4f}" if source else f"{quality.delta:+.4f} (+-{quality.half_width:.4f})")
    kl = sum(quality.kl for quality in line.quality.values()) / len(line.quality)
    top = sum(quality.top_1 for quality in line.quality.values()) / len(line.quality)
    return [*cells, *(["-", "-", ""] if source else [f"{kl:.4f}", f"{top:.1%}", line.text])]


def _spread(values: Sequence[float]) -> str:
    ordered = sorted(values)
    return f"{ordered[len(ordered) // 2]:.0f} ({ordered[0]:.0f}-{ordered[-1]:.0f})"


def make_report(
    source: Path,
    directories: Mapping[str, Path],
    *,
    domains: Sequence[Domain],
    tokens: int,
    rounds: int,
    new_tokens: int = 100,
    calibration: Tensor | None = None,
    measure: Measure | None = None,
    kv_cache: bool = False,
) -> CompressionReport:
    """Measure a source and what was made of it.

    Args:
        source: Its checkpoint directory.
        directories: Name of a row -> its directory.
        domains: Text to measure with.
        tokens: Of each domain.
        rounds: Of speed and memory; 0 measures neither.
        new_tokens: To generate in a trial.
        calibration: The windows that were calibrated with, which must not overlap the measured ones.
        measure: See `speed.measure_speed`.
        kv_cache: Also measure the source with a rounded KV cache, in the forms of `CACHES`.

    Raises:
        DataError: The text is too short, or overlaps the calibration text.
    """
    plain = load_model(source).float()
    tokenizer = tokenizers.load(source)
    length = window_length(plain.config.block_size)
    windows = {domain.name: measurement_windows(domain, tokens=tokens, length=length) for domain in domains}
    if calibration is not None:
        check_disjoint(calibration, list(windows.values()))
    measured = SourceModel(plain, windows, tokenizer)
    parameters = plain.num_parameters()
    speeds = _speeds([source, *directories.values()], rounds=rounds, new_tokens=new_tokens, measure=measure)
    first = _line("source, bf16", source, measured.compare(None), speeds[0], parameters, file_bytes=2 * parameters)
    lines = [first]
    for (name, directory), trials in zip(directories.items(), speeds[1:], strict=True):
        model = load_model(directory).float()
        quality = measured.compare(model)
        lines.append(_line(name, directory, quality, trials, parameters, zeros=_zeros(model)))
        del model
    rows = [line.row for line in lines]
    judged = [dataclasses.replace(line, text=verdict(line.row, rows[0], rows[1:])) for line in lines[1:]]
    notes = [note] if (note := gridded_note(plain)) else []
    if len(domains) < 2:
        notes.append("one domain only: what was fitted to it may be worse elsewhere; --domain NAME=FILE adds one")
    cache = measured_caches(measured, plain) if kv_cache else {}
    notes += _cache_notes(cache) if cache else []
    facts = {"tokens": {name: int(rows[:, 1:].numel()) for name, rows in windows.items()}, "rounds": rounds, **cache}
    return CompressionReport(lines=[first, *judged], notes=notes, facts=facts)


CACHES = {"int8": (8, "token"), "int4": (4, "token"), "int4, keys per channel": (4, "channel")}
"""Forms of the KV cache that are measured: bits, and what shares a scale of the keys; the engine has the first."""


def measured_caches(measured: SourceModel, plain: GPT) -> dict[str, Any]:
    """The source with a rounded KV cache, for the record: bytes of a token of context, and its quality."""
    twin = copy.deepcopy(plain, {id(parameter): parameter for parameter in plain.parameters()})  # shares the weights
    found: dict[str, Any] = {}
    for name, (bits, keys) in CACHES.items():
        with rounded_cache(twin, bits=bits, keys=keys):
            quality = measured.compare(twin)
        rows = {domain: dataclasses.asdict(value) for domain, value in quality.items()}
        found[name] = {"bytes_per_token": bytes_per_token(plain.config, bits=bits, keys=keys), "quality": rows}
    return {"kv_cache": {"bytes_per_token": bytes_per_token(plain.config, bits=16), "forms": found}}


def _cache_notes(facts: Mapping[str, Any]) -> Iterator[str]:
    whole = facts["kv_cache"]["bytes_per_token"]
    for name, found in facts["kv_cache"]["forms"].items():
        size, rows = found["bytes_per_token"], found["quality"]
        deltas = ", ".join(f"{domain} {row['delta']:+.4f} (+-{row['half_width']:.4f})" for domain, row in rows.items())
        kl = sum(row["kl"] for row in rows.values()) / len(rows)
        yield (
            f"the source with a KV cache of {name}: {size:,.0f} instead of {whole:,.0f} bytes per token of context; "
            f"delta bpb {deltas}; KL {kl:.4f}"
        )


def _speeds(directories: list[Path], *, rounds: int, new_tokens: int, measure: Measure | None) -> list[Trials]:
    if not rounds:
        return [Trials() for _ in directories]
    return measure_speed(directories, rounds=rounds, tokens=new_tokens, measure=measure)


def _line(
    name: str,
    directory: Path,
    quality: Mapping[str, DomainQuality],
    trials: Trials,
    parameters: int,
    *,
    file_bytes: int | None = None,
    zeros: float = 0.0,
) -> ModelMeasurement:
    size = weights_file(directory).stat().st_size if file_bytes is None else file_bytes
    row = Row(
        name=name,
        file_bytes=size,
        tokens_per_s=tuple(trials.tokens_per_s),
        peak_mb=tuple(trials.peak_mb),
        decoder=trials.decoder,
        deltas={domain: (value.delta, value.half_width) for domain, value in quality.items()},
        kl=sum(value.kl for value in quality.values()) / len(quality),
        zeros=zeros,
    )
    return ModelMeasurement(row=row, bits_per_weight=size * 8 / parameters, quality=quality, directory=directory)


def _zeros(model: GPT) -> float:
    """Share of exact zeros in matrices of blocks that are stored dense."""
    zeros = total = 0
    for name, weight in model.named_parameters():
        if ".h." in name and weight.dim() == 2:
            zeros, total = zeros + int((weight == 0).sum()), total + weight.numel()
    return zeros / total if total else 0.0


def check_required(report: CompressionReport, axes: Sequence[str]) -> None:
    """Raise NotSaved (exit code 4) if a row lacks a saving that is required."""
    source = report.lines[0].row
    for line in report.lines[1:]:
        missing = [axis for axis in AXES if axis in axes and axis not in saves(line.row, source)]
        if missing:
            upper = worst_upper(line.quality)
            raise NotSaved(
                f"{line.row.name} does not save {', '.join(missing)}: {line.text}; at worst {upper:+.4f} bits a byte.",
                needed=f"--require {','.join(axes)}",
            )
