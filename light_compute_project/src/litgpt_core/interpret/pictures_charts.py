"""The kinds of chart that the pictures are made of: heat maps with numbers, curves, bars with errors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = ("#1d5fbf", "#b4460f", "#1a7a3c", "#7a2fb0", "#0d7282", "#8a6400")
SEQUENTIAL, DIVERGING = "Blues", "RdBu"


def visible(token: str, *, longest: int = 12) -> str:
    """A token with its spaces and line breaks shown, escaped for matplotlib."""
    text = token.replace("\n", "⏎").replace("\t", "→").replace(" ", "·")[:longest]
    return text.replace("$", r"\$")


def heat(
    axes: Axes,
    values: Sequence[Sequence[float | None]],
    *,
    title: str,
    rows: Sequence[str] = (),
    columns: Sequence[str] = (),
    low: float | None = None,
    high: float | None = None,
    diverging: bool = False,
    numbers: bool = False,
) -> None:
    """values[row][column] as colours, numbers on top where there is room."""
    array = np.array([[np.nan if value is None else value for value in row] for row in values], dtype=float)
    if diverging and high is None:
        high = float(np.nanmax(np.abs(array))) or 1.0
    image = axes.imshow(
        array,
        cmap=DIVERGING if diverging else SEQUENTIAL,
        aspect="auto",
        vmin=-high if diverging and high else low,
        vmax=high,
    )
    axes.set_title(title, fontsize=10, loc="left")
    axes.set_xticks(range(len(columns)), [visible(text) for text in columns], fontsize=7)
    axes.set_yticks(range(len(rows)), [visible(text) for text in rows], fontsize=7)
    if any(len(text) > 3 for text in columns):
        axes.tick_params(axis="x", rotation=60)
    if numbers and array.size <= 80:
        top = float(np.nanmax(np.abs(array))) if high is None else high
        for (row, column), value in np.ndenumerate(array):
            if np.isfinite(value):
                dark = abs(value) > 0.6 * top
                axes.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=7, color="w" if dark else "k")
    axes.figure.colorbar(image, ax=axes, shrink=0.8)


def spread(count: int, most: int) -> list[int]:
    """At most `most` of the numbers from 0 to count - 1, evenly spread, both ends among them."""
    return [round(i * (count - 1) / max(1, min(count, most) - 1)) for i in range(min(count, most))]


def ticks(axes: Axes, labels: Sequence[str], *, most: int = 12) -> None:
    """Labels of the places 0, 1, ... along x, as many as there is room for."""
    shown = spread(len(labels), most)
    axes.set_xticks(shown, [labels[place] for place in shown])


def curve(axes: Axes, x: Sequence[float], y: Sequence[float], name: str, index: int, **style: Any) -> None:
    """One line with points."""
    axes.plot(x, y, marker="o", markersize=3, color=COLOURS[index % len(COLOURS)], label=name, **style)


def finish(axes: Axes, *, x: str = "", y: str = "", title: str = "", legend: bool = True) -> None:
    """Labels, grid, legend."""
    axes.set_xlabel(x, fontsize=8)
    axes.set_ylabel(y, fontsize=8)
    axes.set_title(title, fontsize=10, loc="left")
    axes.tick_params(labelsize=7)
    axes.grid(alpha=0.25)
    if legend:
        axes.legend(frameon=False, fontsize=7)


def bar(axes: Axes, names: Sequence[str], values: Sequence[float], errors: Sequence[float] | None, title: str) -> None:
    """Horizontal bars, the first on top."""
    colours = [COLOURS[0] if value >= 0 else COLOURS[1] for value in values]
    axes.barh(range(len(names)), values, xerr=errors, color=colours, ecolor="#444444", capsize=2)
    axes.set_yticks(range(len(names)), [visible(name, longest=24) for name in names], fontsize=7)
    axes.invert_yaxis()
    axes.axvline(0, color="#444444", linewidth=0.8)
    finish(axes, title=title, legend=False)
