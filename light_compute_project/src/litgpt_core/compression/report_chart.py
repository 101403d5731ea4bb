"""The Pareto chart of a report: file size against what was lost, and against speed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from litgpt_core.core.files import replacing

if TYPE_CHECKING:
    from litgpt_core.compression.report import CompressionReport


def draw(report: CompressionReport, path: Path) -> None:
    """Draw `report` into a PNG file."""
    from matplotlib.figure import Figure

    source, *lines = report.lines
    figure = Figure(figsize=(10, 4.2), dpi=120, layout="constrained")
    left, right = figure.subplots(1, 2)
    for line in [source, *lines]:
        size, lost = line.row.file_bytes / 1e6, line.row.delta
        noise = max((half for _, half in line.row.deltas.values()), default=0.0)
        left.errorbar([size], [lost], yerr=[noise], fmt="o", markersize=5, capsize=3)
        left.annotate(line.row.name, (size, lost), xytext=(5, 5), textcoords="offset points", fontsize=8)
        if line.row.tokens_per_s:
            speed = sorted(line.row.tokens_per_s)[len(line.row.tokens_per_s) // 2]
            right.plot([speed], [lost], "o", markersize=5)
            right.annotate(line.row.name, (speed, lost), xytext=(5, 5), textcoords="offset points", fontsize=8)
    front = sorted({(line.row.file_bytes / 1e6, line.row.delta) for line in [source, *lines]})
    best, steps = float("inf"), []
    for size, lost in front:
        if lost < best:
            best = lost
            steps.append((size, lost))
    left.step(*zip(*steps, strict=True), where="post", linewidth=1, color="#9ca3af")
    left.set_xlabel("file, MB")
    left.set_ylabel("bits per byte lost, mean of domains")
    right.set_xlabel("tokens per second" if any(line.row.tokens_per_s for line in lines) else "not measured")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png")
