"""`sweep.png`: the runs' validation curves, and the final loss against what was swept."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from litgpt_core.search.sweep_record import SweepRecord
from litgpt_core.search.sweep_results import METRIC_NAMES
from litgpt_core.training.rows import curve, read_rows
from litgpt_core.training.run_folder import RunFolder

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#2563eb", "#c2410c", "#15803d", "#7e22ce", "#0e7490", "#a16207", "#be185d", "#525252")
MAX_LABELS = 12
"""More runs than this are drawn without a legend."""


def draw_sweep(record: SweepRecord, path: Path) -> bool:
    """Draw `sweep.png`; whether there was anything to draw."""
    from matplotlib.figure import Figure

    curves = {p.name: curve(read_rows(RunFolder(p.config.run.folder).metrics), "val_loss") for p in record.grid.points}
    axis = main_axis(record)
    if not any(curves.values()):
        return False
    figure = Figure(figsize=(12 if axis else 7, 4.8), dpi=130, layout="constrained")
    panels = figure.subplots(1, 2 if axis else 1, squeeze=False)[0]
    _draw_curves(panels[0], record, curves)
    if axis:
        _draw_axis(panels[1], record, axis)
    figure.suptitle(f"{record.grid.name}: {len(record.entries)} runs", fontsize=11, x=0.01, ha="left")
    save(figure, path)
    return True


def main_axis(record: SweepRecord) -> str | None:
    """The swept key along which a picture says most: numbers before names, then the one with most values."""
    axes = {k: v for k, v in record.grid.axes.items() if len(v) > 1 and k not in ("seed", "run.name", "run.dir")}
    if not axes:
        return None
    return max(axes, key=lambda key: (numbers(axes[key]) is not None, len(axes[key])))


def numbers(texts: Sequence[str]) -> list[float] | None:
    """Values as numbers, or None if one of them is none."""
    try:
        found = [float(text) for text in texts]
    except ValueError:
        return None
    return found if all(map(math.isfinite, found)) else None


def is_logarithmic(values: Sequence[float]) -> bool:
    """Whether values are better drawn on a logarithmic axis: all above 0, and spread over a factor of 8."""
    return min(values) > 0 and max(values) / min(values) >= 8


def short_names(keys: Sequence[str]) -> list[str]:
    """Dotted keys without their section, as far as that tells them apart."""
    ends = [key.split(".")[-1] for key in keys]
    return [end if ends.count(end) == 1 else key for key, end in zip(keys, ends, strict=True)]


def style(axes: Axes, *, title: str) -> None:
    """Grid, no upper and right frame, a title at the left."""
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(title, fontsize=10, loc="left")


def save(figure: Figure, path: Path) -> None:
    """Write a PNG so that a reader sees the old one or the new one."""
    temporary = path.with_name(f".{path.name}.tmp")
    figure.savefig(temporary, format="png")
    temporary.replace(path)


def _draw_curves(axes: Axes, record: SweepRecord, curves: dict[str, list[tuple[int, float]]]) -> None:
    looks: dict[tuple[str, ...], int] = {}
    for point, entry in zip(record.grid.points, record.entries, strict=True):
        number = looks.setdefault(tuple(v for k, v in point.values.items() if k != "seed"), len(looks))
        if values := curves[point.name]:
            label = ", ".join(f"{key.split('.')[-1]} {text}" for key, text in point.values.items()) or point.name
            line = "-" if entry.state == "done" else ":"
            colour = COLOURS[number % len(COLOURS)]
            axes.plot(*zip(*values, strict=True), line, color=colour, linewidth=1.4, marker=".", label=label)
    axes.set_xlabel("optimizer step")
    axes.set_ylabel(METRIC_NAMES["val_loss"])
    style(axes, title="validation while training (dotted: not finished)")
    if len(record.entries) <= MAX_LABELS:
        axes.legend(frameon=False, fontsize=8)


def _draw_axis(axes: Axes, record: SweepRecord, key: str) -> None:
    """Each run a dot; runs that differ only in the seed are joined at their mean; other swept keys are colours."""
    from matplotlib.ticker import NullLocator

    texts = record.grid.axes[key]
    is_numeric = numbers(texts) is not None
    places: dict[str, float] = dict(zip(texts, numbers(texts) or range(len(texts)), strict=True))
    series: dict[str, dict[float, list[float]]] = {}
    for entry in record.entries:
        if (value := entry.result.get(record.metric)) is None:
            continue
        others = {k: v for k, v in entry.values.items() if k not in (key, "seed", "run.name") and _swept(record, k)}
        label = ", ".join(f"{k.split('.')[-1]} {v}" for k, v in others.items())
        series.setdefault(label, {}).setdefault(places[entry.values[key]], []).append(value)
    for number, (label, found) in enumerate(sorted(series.items())):
        colour, xs = COLOURS[number % len(COLOURS)], sorted(found)
        axes.plot(xs, [statistics.fmean(found[x]) for x in xs], color=colour, linewidth=1.2, label=label or None)
        axes.plot([x for x in xs for _ in found[x]], [v for x in xs for v in found[x]], "o", color=colour, markersize=5)
    found_at = sorted({x for found in series.values() for x in found})
    if is_numeric and found_at and is_logarithmic(found_at):
        axes.set_xscale("log")
    if not is_numeric or len(texts) <= MAX_LABELS:
        ticks = {places[text]: text for text in texts if places[text] in found_at}
        axes.set_xticks(list(ticks), list(ticks.values()))
        axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel(key)
    axes.set_ylabel(METRIC_NAMES[record.metric])
    seeds = ", line: mean over seeds" if _swept(record, "seed") else ""
    style(axes, title=f"finished runs, whole validation split{seeds}")
    if any(series) and len(series) <= MAX_LABELS:
        axes.legend(frameon=False, fontsize=8)


def _swept(record: SweepRecord, key: str) -> bool:
    return len(record.grid.axes.get(key, ())) > 1
