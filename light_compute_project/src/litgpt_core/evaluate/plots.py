"""One picture of several checkpoints: bars with 95 % intervals, chance and the bigram model as lines."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Any, Literal

from litgpt_core.evaluate.statistics import Estimate

COLOURS = ("#2563eb", "#c2410c", "#15803d", "#7e22ce", "#0e7490", "#a16207", "#be185d", "#525252")
WIDTH = 0.8


def draw(records: Sequence[dict[str, Any]], *, form: str = "png") -> bytes:
    """A PNG or SVG: bits per byte on the left (where measured), accuracy of every suite on the right.

    Args:
        records: As `record.measure` returns them.
        form: png or svg.
    """
    from matplotlib.figure import Figure

    suites = list(dict.fromkeys(suite for record in records for suite in record["suites"]))
    has_bytes = any("bytes" in record for record in records)
    shares = [1.0] * has_bytes + [max(1.0, 0.8 * len(suites))] * bool(suites)
    figure = Figure(figsize=(2.2 + 2.6 * sum(shares), 4.2), dpi=130, layout="constrained")
    axes = iter(figure.subplots(1, len(shares), squeeze=False, width_ratios=shares)[0])
    if has_bytes:
        _bytes(next(axes), records)
    if suites:
        _suites(next(axes), records, suites)
    handles = [
        *(_patch(COLOURS[place % len(COLOURS)], str(record["name"])) for place, record in enumerate(records)),
        *([_line("#525252", "-", "chance"), _line("#525252", ":", "bigram model")] if suites else []),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(4, len(handles)), frameon=False, fontsize=8)
    file = io.BytesIO()
    figure.savefig(file, format=form)
    return file.getvalue()


def _bytes(axes: Any, records: Sequence[dict[str, Any]]) -> None:
    having = [(place, record["bytes"]) for place, record in enumerate(records) if "bytes" in record]
    for place, found in having:
        error = 1.96 * (found["se"] or 0.0)
        bars = axes.bar(
            [place], [found["bits_per_byte"]], WIDTH, color=COLOURS[place % len(COLOURS)], yerr=error, capsize=3
        )
        axes.bar_label(bars, [f"{found['bits_per_byte']:.3f}"], fontsize=8, padding=2)
    references = sorted(having[0][1]["references"].items(), key=lambda pair: pair[1])
    axes.set_xlim(-0.6, len(records) - 0.4 + 0.35 * len(records) ** 0.5)  # room for the names of the lines
    for place, (name, value) in enumerate(references):
        axes.axhline(value, color="#525252", linewidth=0.9, linestyle=":" if name == "bigram" else "-.")
        crowded = place + 1 < len(references) and references[place + 1][1] - value < 0.12
        axes.annotate(
            f"{name} {value:.2f}",
            (1, value),
            xycoords=("axes fraction", "data"),
            xytext=(-2, -2 if crowded else 1),
            textcoords="offset points",
            ha="right",
            va="top" if crowded else "bottom",
            fontsize=7,
        )
    axes.set_xticks([])
    axes.set_title("bits per byte (less is better)", fontsize=9, loc="left")
    axes.spines[["top", "right"]].set_visible(False)


def _suites(axes: Any, records: Sequence[dict[str, Any]], suites: Sequence[str]) -> None:
    step = WIDTH / len(records)
    for number, suite in enumerate(suites):
        for place, record in enumerate(records):
            if (found := record["suites"].get(suite)) is None:
                continue
            value, se = found["accuracy"]["value"], found["accuracy"]["se"]
            width = Estimate(value=value, se=se or 0.0, n=found["n"], clusters=found["clusters"]).half_width
            where = number - WIDTH / 2 + (place + 0.5) * step
            error = width if math.isfinite(width) else 0.0
            axes.bar([where], [value], 0.92 * step, color=COLOURS[place % len(COLOURS)], yerr=error, capsize=2)
        first = next(record["suites"][suite] for record in records if suite in record["suites"])
        ends = [number - WIDTH / 2, number + WIDTH / 2]
        axes.plot(ends, [first["chance"]] * 2, color="#525252", linewidth=1.2)
        if "bigram" in first["references"]:
            axes.plot(ends, [first["references"]["bigram"]["accuracy"]] * 2, ":", color="#525252", linewidth=1.4)
    axes.set_xticks(range(len(suites)), [suite.replace("_", "\n") for suite in suites], fontsize=8)
    axes.set_ylim(0, 1)
    axes.set_title("accuracy, 95 % intervals (more is better)", fontsize=9, loc="left")
    axes.spines[["top", "right"]].set_visible(False)


def _patch(colour: str, label: str) -> Any:
    from matplotlib.patches import Patch

    return Patch(color=colour, label=label)


def _line(colour: str, style: Literal["-", ":"], label: str) -> Any:
    from matplotlib.lines import Line2D

    return Line2D([], [], color=colour, linestyle=style, linewidth=1.3, label=label)
